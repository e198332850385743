"""`cp`: which path becomes which, and archives that mean harm."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from silo.cli.copy_paths import plan_target, split_operand, split_path, wants_contents
from silo.cli.failure import Failure
from silo.cli.tar_in import PieceFile, Unpacker
from silo.cli.tar_out import pack


@pytest.mark.parametrize(
    ("text", "container", "path"),
    [
        ("web:/a", "web", "/a"),
        ("web:a:b", "web", "a:b"),
        ("box:C:\\data", "box", "C:\\data"),
        ("/a:b", "", "/a:b"),
        ("./a:b", "", "./a:b"),
        ("-", "", "-"),
        ("file", "", "file"),
    ],
)
def test_operands(text: str, container: str, path: str) -> None:
    assert split_operand(text) == (container, path)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/a/b", ("/a", "b")),
        ("/a/b/", ("/a", "b")),
        ("/a", ("/", "a")),
        ("/", ("/", "")),
        ("a", (".", "a")),
        ("C:\\data\\x", ("C:\\data", "x")),
        ("C:\\data", ("C:\\", "data")),
        ("C:\\", ("C:\\", "")),
        ("C:/data/x", ("C:/data", "x")),
    ],
)
def test_paths_are_split_in_both_spellings(path: str, parts: tuple[str, str]) -> None:
    assert split_path(path) == parts


def _plan(source: str, *, is_dir: bool, target: str, exists: bool, target_is_dir: bool = False) -> tuple[str, str]:
    return plan_target(
        source_name=split_path(source)[1],
        source_is_dir=is_dir,
        contents=wants_contents(source),
        target=target,
        target_exists=exists,
        target_is_dir=target_is_dir,
    )


def test_dockers_rules_of_cp() -> None:
    assert _plan("/s/f", is_dir=False, target="/t/d", exists=True, target_is_dir=True) == ("/t/d", "f")
    assert _plan("/s/f", is_dir=False, target="/t/g", exists=True) == ("/t", "g")
    assert _plan("/s/f", is_dir=False, target="/t/g", exists=False) == ("/t", "g")
    assert _plan("/s/d", is_dir=True, target="/t", exists=True, target_is_dir=True) == ("/t", "d")
    assert _plan("/s/d", is_dir=True, target="/t/n", exists=False) == ("/t", "n")
    assert _plan("/s/d/.", is_dir=True, target="/t", exists=True, target_is_dir=True) == ("/t", "")
    assert _plan("/s/d/.", is_dir=True, target="/t/n", exists=False) == ("/t", "n")
    assert _plan("/s/f", is_dir=False, target="C:\\t", exists=True, target_is_dir=True) == ("C:\\t", "f")
    with pytest.raises(Failure, match="cannot copy directory"):
        _plan("/s/d", is_dir=True, target="/t/f", exists=True)
    with pytest.raises(Failure, match="no such directory"):
        _plan("/s/f", is_dir=False, target="/t/n/", exists=False)


def _tar(*members: tuple[str, bytes, bytes | str]) -> bytes:
    """(name, type, data or link target)"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o4755 if kind == tarfile.REGTYPE else 0o755
            if isinstance(data, str):
                info.linkname, data = data, b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _unpack(directory: Path, name: str, data: bytes) -> list[str]:
    unpacker = Unpacker(str(directory), name)
    unpacker.unpack(PieceFile(iter([data[index : index + 700] for index in range(0, len(data), 700)])))
    return unpacker.refused


DIR, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_a_tree_arrives_under_its_new_name(tmp_path: Path) -> None:
    refused = _unpack(
        tmp_path, "new", _tar(("d", DIR, b""), ("d/x/f", FILE, b"1"), ("d/l", LINK, "x/f"), ("d/h", HARD, "d/x/f"))
    )
    assert refused == []
    assert (tmp_path / "new/l").read_bytes() == b"1"
    assert (tmp_path / "new/h").read_bytes() == b"1"
    assert (tmp_path / "new/x/f").stat().st_mode & 0o7777 == 0o755


def test_contents_go_into_the_directory_itself(tmp_path: Path) -> None:
    _unpack(tmp_path, "", _tar(("./", DIR, b""), ("./f", FILE, b"1")))
    assert (tmp_path / "f").read_bytes() == b"1"


@pytest.mark.parametrize(
    "members",
    [
        [("d", DIR, b""), ("d/../../evil", FILE, b"x")],
        [("../evil", FILE, b"x")],
        [("d", DIR, b""), ("/evil", FILE, b"x")],
        [("d", DIR, b""), ("other", FILE, b"x")],
        [("d", DIR, b""), ("d/h", HARD, "../../outside")],
    ],
)
def test_nothing_climbs_out(tmp_path: Path, members: Sequence[tuple[str, bytes, bytes | str]]) -> None:
    (tmp_path / "outside").write_text("mine")
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    with pytest.raises(Failure):
        _unpack(target, "n", _tar(*members))
    assert not list(tmp_path.rglob("evil"))
    assert (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize("link", ["/etc", "../..", "x/../../.."])
def test_links_out_are_refused_and_told(tmp_path: Path, link: str) -> None:
    refused = _unpack(tmp_path, "n", _tar(("d", DIR, b""), ("d/l", LINK, link), ("d/f", FILE, b"1")))
    assert len(refused) == 1
    assert "leads out" in refused[0]
    assert not (tmp_path / "n/l").is_symlink()
    assert (tmp_path / "n/f").exists()


def test_a_link_that_is_there_already_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "n").mkdir()
    (tmp_path / "n/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(Failure, match="a link or a file is where a directory should be"):
        _unpack(tmp_path, "n", _tar(("d", DIR, b""), ("d/sub/evil", FILE, b"x")))
    assert list((tmp_path / "outside").iterdir()) == []


def test_devices_are_left_out(tmp_path: Path) -> None:
    refused = _unpack(
        tmp_path, "n", _tar(("d", DIR, b""), ("d/null", tarfile.CHRTYPE, b""), ("d/p", tarfile.FIFOTYPE, b""))
    )
    assert len(refused) == 2
    assert list((tmp_path / "n").iterdir()) == []


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="damaged"):
        _unpack(tmp_path, "n", b"not a tar" * 200)


def test_packing_gives_back_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/f").write_bytes(os.urandom(300_000))
    (source / "l").symlink_to("sub/f")
    os.link(source / "sub/f", source / "h")
    data = b"".join(pack(str(source), "named", follow=False))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["named", "named/h", "named/l", "named/sub", "named/sub/f"]
        assert tar.getmember("named/l").linkname == "sub/f"
        for name in ("named/h", "named/sub/f"):
            member = tar.extractfile(name)
            assert member is not None
            assert member.read() == (source / "sub/f").read_bytes()
    contents = b"".join(pack(str(source), "", follow=False))
    with tarfile.open(fileobj=io.BytesIO(contents)) as tar:
        assert tar.getnames() == ["h", "l", "sub", "sub/f"]
