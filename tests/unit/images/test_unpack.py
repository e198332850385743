"""Layers as directories: what is kept, how whiteouts come out, and that hostile ones write nothing outside."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.errors import InvalidRequest, NoSpace
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.unpack import OPAQUE_ATTRIBUTE, clean_name
from silo.images.workspace import Workspace
from tests.support.images import Entry, directory, file, hardlink, layer_tar, symlink, whiteout


def unpack(root: Path, entries: Sequence[Entry], limits: ImageLimits | None = None) -> Path:
    return unpack_bytes(root, layer_tar(entries), limits)


def unpack_bytes(root: Path, data: bytes, limits: ImageLimits | None = None) -> Path:
    """Into a new store under `root`; answers the layer's directory."""
    workspace = Workspace(root / "data")
    store = LayerStore(workspace, limits or ImageLimits())
    diff_id = "sha256:" + hashlib.sha256(data).hexdigest()
    operation = workspace.begin()
    try:
        store.ensure(operation, diff_id, lambda: [data], packed_bytes=len(data))
    finally:
        workspace.end(operation)
    return workspace.layer_path(diff_id)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE_ATTRIBUTE in os.listxattr(path) and os.getxattr(path, OPAQUE_ATTRIBUTE) == b"y"


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the effective user id is not 0")


@needs_root
def test_attributes_are_kept(tmp_path: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    records = {"SCHILY.xattr.security.capability": capability.decode("latin-1"), "SCHILY.xattr.user.note": "n"}
    layer = unpack(
        tmp_path,
        [
            directory("./", mode=0o750, uid=5, gid=6),
            directory("d", mode=0o2775, uid=100_000, gid=7),
            file("d/suid", "x", mode=0o4755, uid=0, gid=12),
            Entry(name="d/cap", data=b"y", pax=records, mtime=1.25),
            symlink("d/link", "/nowhere/at/all"),
            hardlink("hard", "d/suid"),
            Entry(name="fifo", kind=tarfile.FIFOTYPE, mode=0o622, uid=9),
            Entry(name="d/link2", kind=tarfile.SYMTYPE, link="x", uid=44, gid=55),
        ],
    )
    status = layer.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 5, 6)
    status = (layer / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (
        0o2775,
        100_000,
        7,
        1704067200,
    )
    status = (layer / "d/suid").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o4755, 0, 12, 2)
    assert (layer / "hard").stat().st_ino == status.st_ino
    assert os.getxattr(layer / "d/cap", "security.capability") == capability
    assert os.getxattr(layer / "d/cap", "user.note") == b"n"
    assert (layer / "d/cap").stat().st_mtime_ns == 1_250_000_000 and (layer / "d/cap").stat().st_gid == 0
    assert (layer / "d/link").readlink() == Path("/nowhere/at/all")
    assert ((layer / "d/link2").lstat().st_uid, (layer / "d/link2").lstat().st_gid) == (44, 55)
    assert stat.S_ISFIFO((layer / "fifo").stat().st_mode) and stat.S_IMODE((layer / "fifo").stat().st_mode) == 0o622


@needs_root
def test_an_opaque_directory_holds_no_whiteouts(tmp_path: Path) -> None:
    layer = unpack(
        tmp_path,
        [
            directory("d"),
            whiteout("d/x"),
            directory("d/sub"),
            whiteout("d/sub/y"),
            file("d/.wh..wh..opq"),
            file("d/kept"),
            whiteout("other"),
        ],
    )
    assert sorted(path.name for path in (layer / "d").rglob("*")) == ["kept", "sub"]
    assert is_opaque(layer / "d") and is_whiteout(layer / "other")


@needs_root
def test_whiteouts(tmp_path: Path) -> None:
    layer = unpack(
        tmp_path,
        [
            whiteout("gone"),
            file("deep/down/.wh.file"),
            directory("opaque"),
            file("opaque/.wh..wh..opq"),
            file("opaque/new", "n"),
            whiteout("replaced"),
            file("replaced", "new"),
            whiteout("renewed"),
            directory("renewed", mode=0o700),
            file("renewed/x", "y"),
            whiteout("implied"),
            file("implied/by/file", "z"),
            directory("later"),
            file("later/kept", "k"),
            whiteout("later"),
            file("twice", "kept"),
            whiteout("twice"),
            directory(".wh..wh.plnk"),
            file(".wh..wh.aufs"),
        ],
    )
    assert is_whiteout(layer / "gone") and is_whiteout(layer / "deep/down/file")
    assert is_opaque(layer / "opaque") and (layer / "opaque/new").read_text() == "n"
    assert (layer / "replaced").read_text() == "new"
    assert is_opaque(layer / "renewed") and (layer / "renewed/x").read_text() == "y"
    assert is_opaque(layer / "implied") and (layer / "implied/by/file").read_text() == "z"
    assert is_opaque(layer / "later") and (layer / "later/kept").read_text() == "k"
    assert (layer / "twice").read_text() == "kept"
    assert not any(".wh." in path.name for path in layer.rglob("*"))


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    layer = unpack(
        tmp_path,
        [
            file("a", "old"),
            hardlink("b", "a"),
            file("a", "new"),
            directory("d"),
            file("d/x"),
            file("d", "now a file"),
            symlink("link", "d"),
            directory("link"),
            file("link/y"),
            directory("again", mode=0o700),
            file("again/z"),
            directory("again", mode=0o755),
        ],
    )
    assert (layer / "a").read_text() == "new" and (layer / "b").read_text() == "old"
    assert (layer / "d").read_text() == "now a file"
    assert not (layer / "link").is_symlink() and (layer / "link/y").exists()
    assert (layer / "again/z").exists() and stat.S_IMODE((layer / "again").stat().st_mode) == 0o755


def test_links_on_the_way_are_followed_beneath_the_root(tmp_path: Path) -> None:
    layer = unpack(
        tmp_path,
        [
            directory("usr/lib"),
            symlink("lib", "usr/lib"),
            symlink("abs", "/usr"),
            file("lib/x", "1"),
            file("abs/y", "2"),
        ],
    )
    assert (layer / "usr/lib/x").read_text() == "1" and (layer / "usr/y").read_text() == "2"


def test_device_nodes_and_foreign_attributes_are_left_out(tmp_path: Path) -> None:
    records = {
        f"SCHILY.xattr.{name}": "y"
        for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque")
    }
    layer = unpack(
        tmp_path,
        [
            Entry(name="dev/null", kind=tarfile.CHRTYPE, device=(1, 3)),
            Entry(name="dev/sda", kind=tarfile.BLKTYPE, device=(8, 0)),
            Entry(name="dev/forged-whiteout", kind=tarfile.CHRTYPE, device=(0, 0)),
            Entry(name="d", kind=tarfile.DIRTYPE, mode=0o755, pax=records),
            Entry(name="f", data=b"1", pax=records),
        ],
    )
    assert list((layer / "dev").iterdir()) == []
    assert os.listxattr(layer / "d") == [] and os.listxattr(layer / "f") == []


HOSTILE = {
    "climbing": [file("../outside/new")],
    "climbing deep": [file("a/b/../../../outside/new")],
    "climbing link": [symlink("up", "../../../../outside"), file("up/new")],
    "absolute link": [symlink("out", "{outside}"), file("out/new")],
    "link chain": [symlink("a", "{outside}"), symlink("b", "a"), directory("b/made")],
    "link as directory's parent": [symlink("a", "{outside}"), directory("a/sub/sub2"), file("a/sub/new")],
    "hard link out": [hardlink("h", "../outside/secret"), file("h", "changed")],
    "hard link through a link": [symlink("out", "{outside}"), hardlink("h", "out/secret"), file("h", "changed")],
    "hard link to nothing": [hardlink("h", "absent")],
    "hard link to itself": [hardlink("h", "h")],
    "whiteout out": [symlink("out", "{outside}"), file("out/.wh.secret")],
    "whiteout of nothing": [file(".wh.")],
    "whiteout of dots": [file("a/.wh...")],
    "opaque out": [symlink("out", "{outside}"), file("out/.wh..wh..opq")],
    "file below a file": [file("a"), file("a/b")],
    "root as a file": [file("./")],
    "root as a link": [symlink(".", "{outside}")],
    "long name": [file("n" * 256)],
    "long path": [file("/".join(["d" * 200] * 30))],
    "loop": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    "unknown type": [Entry(name="x", kind=b"Z")],
    "owner": [Entry(name="x", pax={"uid": "4294967295"})],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    entries = [
        Entry(
            name=e.name,
            data=e.data,
            kind=e.kind,
            mode=e.mode,
            link=e.link.replace("{outside}", str(outside)),
            pax=e.pax,
        )
        for e in HOSTILE[name]
    ]
    before = (outside / "secret").stat()
    try:
        unpack(tmp_path, entries)
    except InvalidRequest as error:
        assert str(error).startswith("layer sha256:")
        assert list((tmp_path / "data/layers").iterdir()) == []
    else:
        assert name == "root as a file"  # it ends in a slash, so it is a directory
    assert list((tmp_path / "data/staging").iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["secret"] and (outside / "secret").read_text() == "untouched"
    after = (outside / "secret").stat()
    assert (after.st_nlink, after.st_mode, after.st_mtime_ns) == (1, before.st_mode, before.st_mtime_ns)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "outside"]


def test_the_error_names_layer_entry_and_offset(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        unpack(tmp_path, [file("fine"), file("x" * 300)])
    text = str(caught.value)
    assert (
        text.startswith("layer sha256:") and "'" + "x" * 300 + "'" in text and "offset" in text and "too long" in text
    )


def test_truncated_and_damaged_layers(tmp_path: Path) -> None:
    data = layer_tar([file("a", os.urandom(5000)), file("b", "x")])
    with pytest.raises(InvalidRequest, match="truncated"):
        unpack_bytes(tmp_path, data[:3000])
    workspace = Workspace(tmp_path / "data")
    operation = workspace.begin()
    with pytest.raises(InvalidRequest, match="its content has the digest"):
        LayerStore(workspace, ImageLimits()).ensure(
            operation, "sha256:" + "0" * 64, lambda: [data], packed_bytes=len(data)
        )
    workspace.end(operation)
    assert list(workspace.layers.iterdir()) == [] and list(workspace.staging.iterdir()) == []


def test_limits(tmp_path: Path) -> None:
    many = [file(f"f{n}") for n in range(50)]
    with pytest.raises(InvalidRequest, match="more than 49 entries"):
        unpack(tmp_path, many, ImageLimits(layer_entries=49))
    with pytest.raises(InvalidRequest, match="unpacks to more than"):
        unpack(tmp_path, [file("a", bytes(3 << 20))], ImageLimits(layer_bytes=2 << 20))
    with pytest.raises(NoSpace):
        unpack(tmp_path, [file("a")], ImageLimits(free_bytes=1 << 60))
    unpack(tmp_path, many, ImageLimits(layer_entries=50))


def test_a_bomb(tmp_path: Path) -> None:
    data = layer_tar([file("zeros", bytes(40 << 20))])
    packed = gzip.compress(data, 9)
    workspace = Workspace(tmp_path / "data")
    store = LayerStore(workspace, ImageLimits(ratio_floor_bytes=1 << 20, compression_ratio=100))
    operation = workspace.begin()
    with pytest.raises(InvalidRequest, match="more than 100 times its size"):
        store.unpack_unknown(operation, [packed], packed_bytes=len(packed))
    workspace.end(operation)
    assert list(workspace.staging.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a", "a"),
        ("./a/b/", "a/b"),
        ("/etc//passwd", "etc/passwd"),
        ("a/./b", "a/b"),
        ("a/../b", "b"),
        ("./", ""),
        (".", ""),
        ("/", ""),
        ("a.", "a."),
        ("...", "..."),
        ("a/..", ""),
        (".hidden/.x", ".hidden/.x"),
        ("././a", "a"),
    ],
)
def test_clean_names(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text(alphabet="./ab", max_size=12))
def test_clean_names_are_clean(name: str) -> None:
    try:
        clean = clean_name(name)
    except InvalidRequest:
        assert ".." in name
        return
    assert clean == "" or all(part not in ("", ".", "..") for part in clean.split("/"))
    assert clean_name(clean) == clean


PATHS = st.lists(
    st.sampled_from(["a", "b", "..", ".", "link", "{outside}", ".wh.a", ".wh..wh..opq"]), min_size=1, max_size=4
).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)


@needs_root  # who is not root may not enter the directories with the mode 0644 that it makes
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PATHS, KINDS, PATHS), min_size=1, max_size=8))
def test_no_sequence_of_entries_leaves_the_root(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bytes, str]]
) -> None:
    base = tmp_path_factory.mktemp("case")
    outside = base / "outside"
    outside.mkdir()
    (outside / "a").write_text("untouched")
    entries = [
        Entry(name=name.replace("{outside}", str(outside)), kind=kind, link=link.replace("{outside}", str(outside)))
        for name, kind, link in rows
    ]
    try:
        unpack(base, entries)
    except InvalidRequest:
        assert list((base / "data/layers").iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["a"] and (outside / "a").read_text() == "untouched"
    assert (outside / "a").stat().st_nlink == 1
    assert sorted(path.name for path in base.iterdir()) == ["data", "outside"]
