"""The same tree gives the same bytes, whatever the times and the order in which it was made."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.windows.base.tar_layer import PackedLayer, write_layer

EPOCH_S = 1_700_000_000


def make_tree(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    os.link(root / "b/file", root / "z-link")
    (root / "sym").symlink_to("b/file")


def pack(root: Path, **options: object) -> tuple[PackedLayer, bytes]:
    target = io.BytesIO()
    layer = write_layer(root, target, epoch_s=EPOCH_S, **options)  # type: ignore[arg-type]
    return layer, target.getvalue()


def test_equal_trees_pack_to_equal_bytes(tmp_path: Path) -> None:
    names = ["b/file", "a", "b/c/deep", "B/upper", "é"]
    make_tree(tmp_path / "one", names)
    make_tree(tmp_path / "two", names[::-1])
    os.utime(tmp_path / "two/a", (EPOCH_S + 99, EPOCH_S + 99))
    first, data = pack(tmp_path / "one")
    second, other = pack(tmp_path / "two")
    assert data == other
    assert first == second
    (tmp_path / "two/a").write_bytes(b"changed")
    assert pack(tmp_path / "two")[0].digest != first.digest


def test_entries_are_complete_ordered_and_owned(tmp_path: Path) -> None:
    make_tree(tmp_path, ["b/file", "a", "b/c/deep"])
    os.utime(tmp_path / "a", (5, 5))
    (tmp_path / "a").chmod(0o4755)
    layer, data = pack(tmp_path, owner=lambda path: 1000 if path.startswith("b/") else 0)
    assert layer.size_bytes == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert list(members) == ["a", "sym", "z-link", "b", "b/file", "b/c", "b/c/deep"]
    assert layer.entries == len(members)
    assert members["a"].mtime == 5
    assert members["a"].mode == 0o4755
    assert members["b/file"].mtime == EPOCH_S
    assert (members["b/file"].uid, members["b/file"].gid, members["a"].uid) == (1000, 1000, 0)
    assert members["sym"].linkname == "b/file"
    links = {members["z-link"].type, members["b/file"].type}
    assert links == {tarfile.REGTYPE, tarfile.LNKTYPE}
    assert members["b/file"].linkname == "z-link"


def test_what_a_layer_cannot_hold_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="pipe"):
        pack(tmp_path)
