"""Windows layers as directories: where members land, what is kept with them, and what is refused."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from silo.errors import InvalidRequest, Unsupported
from silo.host.unpacking import Unpacked
from silo.model.tarstream import ByteStream, TarReader
from silo.windows.layers import find_hives, unpack_layer
from silo.windows.layers.properties import Properties
from tests.support.windows_layers import (
    EPOCH_S,
    Member,
    descriptor,
    file,
    folder,
    hardlink,
    layer,
    opaque,
    sid,
    stream,
    symlink,
    whiteout,
    with_parents,
)

DRIVE = "silo/prefix/drive_c"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the effective user id is not 0")


class Stack:
    """A base and the layers that a test puts on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.layers: list[Path] = []
        self.results: list[Unpacked] = []
        base = place / "base"
        for path in ("Windows/System32", "Users/ContainerUser"):
            (base / DRIVE / path).mkdir(parents=True)
        (base / DRIVE / "Windows/System32/Kernel32.dll").write_bytes(b"kernel")
        (base / DRIVE / "Users/ContainerUser").chmod(0o700)
        self.layers.append(base)

    def add(self, rows: Sequence[Member], *, parents: bool = True) -> Path:
        """Answers its `C:\\`."""
        target = self.place / f"layer{len(self.layers)}"
        target.mkdir()
        data = layer(with_parents(rows) if parents else rows)
        reader = TarReader(ByteStream(iter([data])))
        self.results.append(unpack_layer(target, self.hives, reader, self.layers))
        self.layers.insert(0, target)
        return target / DRIVE

    @property
    def hives(self) -> Path:
        return self.place / "hives"

    @property
    def warnings(self) -> list[str]:
        return self.results[-1].warnings


@pytest.fixture
def layers(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def kept(path: Path) -> Properties:
    return msgspec.msgpack.decode(os.getxattr(path, "user.silo.ntfs"), type=Properties)


def is_whiteout(path: Path) -> bool:
    return stat.S_ISCHR(path.lstat().st_mode) and path.lstat().st_rdev == 0


def names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def test_names_land_on_the_spelling_below(layers: Stack) -> None:
    drive = layers.add([file("Files/WINDOWS/system32/KERNEL32.DLL", b"new"), file("Files/windows/New/x", b"1")])
    assert (drive / "Windows/System32/Kernel32.dll").read_bytes() == b"new"
    drive = layers.add([file("files/wINDOWS/NEW/X", b"2"), file("FILES/App/y", b"3"), file("Files/app/Y", b"4")])
    assert (drive / "Windows/New/x").read_bytes() == b"2"
    assert names(drive) == ["App", "Windows"] and (drive / "App/y").read_bytes() == b"4"
    assert names(drive / "App") == ["y"]


def test_names_that_windows_tells_apart_stay_two(layers: Stack) -> None:
    drive = layers.add([file("Files/straße", b"1"), file("Files/STRASSE", b"2"), file("Files/STRAßE", b"3")])
    assert names(drive) == ["STRASSE", "straße"] and (drive / "straße").read_bytes() == b"3"


def test_attributes_and_times(layers: Stack) -> None:
    drive = layers.add(
        [
            file("Files/plain", created=str(EPOCH_S)),
            file("Files/locked", attributes=33, created="5.5"),
            file("Files/hidden", attributes=0x2026),
            folder("Files/d", attributes=0x13, mtime=EPOCH_S + 0.25),
            file("Files/d/x", mtime=EPOCH_S + 9),
        ]
    )
    assert os.listxattr(drive / "plain") == ["user.silo.created"]
    assert stat.S_IMODE((drive / "plain").stat().st_mode) == 0o644
    assert stat.S_IMODE((drive / "locked").stat().st_mode) == 0o444
    assert os.getxattr(drive / "locked", "user.silo.created") == b"5.5"
    assert os.getxattr(drive / "hidden", "user.DOSATTRIB") == b"0x6" and kept(drive / "hidden").attributes == 0x2020
    assert os.getxattr(drive / "d", "user.DOSATTRIB") == b"0x2" and kept(drive / "d").attributes == 1
    assert stat.S_IMODE((drive / "d").stat().st_mode) == 0o755
    assert (drive / "d").stat().st_mtime == EPOCH_S + 0.25 and (drive / "d/x").stat().st_mtime == EPOCH_S + 9


@needs_root
def test_owners(layers: Stack) -> None:
    profile = layers.layers[0] / DRIVE / "Users/ContainerUser"
    os.chown(profile, 1000, 1000)
    users = descriptor(sid(93, 2, 2))
    drive = layers.add(
        [
            folder("Files/Users/containeruser"),
            file("Files/Users/containeruser/x"),
            folder("Files/app", descriptor=users),
            file("Files/app/y"),
            file("Files/z", descriptor=users),
        ]
    )
    status = (drive / "Users/ContainerUser").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1000, 0o700)
    assert [(drive / path).stat().st_uid for path in ("Users/ContainerUser/x", "app", "app/y", "z", "Users")] == [
        *[1000] * 4,
        0,
    ]


def test_properties_are_kept(layers: Stack) -> None:
    big = descriptor(sid(18), size=5000)
    drive = layers.add(
        [
            file("Files/a", descriptor=descriptor(sid(18)), eas={"E": b"\0\1"}),
            stream("Files/a:Zone.Identifier:$DATA", b"[ZoneTransfer]"),
            stream("Files/A:zone.identifier", b"again"),
            stream("Files/a:large", bytes(3000)),
            file("Files/b", descriptor=big),
            stream("Files/a:late", b"l"),
            folder("Files/d"),
            stream("Files/d:of a directory", b"s"),
        ]
    )
    found = kept(drive / "a")
    assert found.descriptor == descriptor(sid(18)) and found.extended == {"E": b"\0\1"}
    assert sorted(found.streams) == ["Zone.Identifier", "large", "late"]
    assert found.streams["Zone.Identifier"].data == b"again" and found.streams["large"].size == 3000
    side = layers.layers[0] / "silo/kept"
    assert (side / found.streams["large"].digest).read_bytes() == bytes(3000)
    reference, _, size = os.getxattr(drive / "b", "user.silo.ntfs").removeprefix(b"@").decode().partition(":")
    record = (side / reference).read_bytes()
    assert len(record) == int(size) and msgspec.msgpack.decode(record, type=Properties).descriptor == big
    assert kept(drive / "d").streams["of a directory"].data == b"s"


def test_hives(layers: Stack) -> None:
    layers.add(
        [
            folder("Hives"),
            file("hives/SOFTWARE_delta", b"old"),
            file("Hives/Software_Delta", b"regf"),
            file("Hives/System_Delta.LOG1", b"log"),
        ],
        parents=False,
    )
    assert {name: path.read_bytes() for name, path in find_hives(layers.hives).items()} == {"Software_Delta": b"regf"}
    assert "System_Delta.LOG1" in layers.warnings[0]
    assert find_hives(layers.place / "nothing") == {}


def test_links(layers: Stack) -> None:
    drive = layers.add(
        [
            symlink("Files/app/dll", "c:\\windows\\SYSTEM32\\kernel32.dll"),
            symlink("Files/app/later", "..\\LATER\\x"),
            symlink("Files/app/through", "\\app\\junction\\System32"),
            symlink("Files/app/junction", "\\??\\C:\\WINDOWS", junction=True),
            symlink("Files/app/away", "\\\\server\\share"),
            symlink("Files/app/buildkit", "Files/windows"),
            file("Files/Later/X", b"x"),
        ]
    )
    found = {name: os.fspath((drive / "app" / name).readlink()) for name in names(drive / "app")}
    assert found == {
        "dll": "../Windows/System32/Kernel32.dll",
        "later": "../Later/X",
        "through": "junction/System32",
        "junction": "../Windows",
        "away": "\\\\server\\share",
        "buildkit": "../Windows",
    }
    assert layers.warnings == [
        "Files/app/away links to '\\\\\\\\server\\\\share', outside of C:, and leads nowhere here"
    ]


@needs_root
def test_targets_of_links_are_kept(layers: Stack) -> None:
    drive = layers.add([symlink("Files/j", "\\??\\C:\\WINDOWS", junction=True, attributes=1040)])
    record = os.getxattr(drive / "j", "trusted.silo.ntfs", follow_symlinks=False)
    found = msgspec.msgpack.decode(record, type=Properties)
    assert found.target == "\\??\\C:\\WINDOWS" and found.is_junction


def test_hard_links(layers: Stack) -> None:
    base = layers.layers[0] / DRIVE / "Windows/System32/Kernel32.dll"
    base.chmod(0o444)
    os.utime(base, (5, 6))
    drive = layers.add(
        [
            file("Files/a/x", b"x"),
            hardlink("Files/b/y", "Files/A/X"),
            hardlink("Files/b/chain", "Files/b/early"),
            hardlink("Files/b/early", "files/windows/system32/KERNEL32.dll"),
            hardlink("Files/b/second", "Files/Windows/System32/kernel32.dll"),
            hardlink("Files/b/missing", "Files/Windows/WinSxS/none.dll"),
        ]
    )
    assert (drive / "b/y").stat().st_ino == (drive / "a/x").stat().st_ino
    copies = {(drive / "b" / name).stat().st_ino for name in ("chain", "early", "second")}
    status = (drive / "b/early").stat()
    assert len(copies) == 1 and (drive / "b/chain").read_bytes() == b"kernel" and base.stat().st_nlink == 1
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o444, 6)
    assert names(drive / "b") == ["chain", "early", "second", "y"] and "none.dll" in layers.warnings[0]
    assert layers.results[-1].file_bytes == 1 + len(b"kernel")


def test_what_comes_after_a_link_that_waits_takes_its_place(layers: Stack) -> None:
    link = hardlink("Files/l", "Files/Windows/System32/Kernel32.dll")
    drive = layers.add([link, file("Files/L", b"file")])
    assert (drive / "l").read_bytes() == b"file"
    drive = layers.add([link, folder("Files/l"), file("Files/l/x")], parents=False)
    assert (drive / "l/x").is_file()
    drive = layers.add(
        [folder("Files/d"), symlink("Files/d/s", "x"), file("Files/d"), folder("Files/d")], parents=False
    )
    assert names(drive / "d") == []


def test_copies_for_links_count(layers: Stack, tmp_path: Path) -> None:
    def check(so_far: Unpacked) -> None:
        if so_far.file_bytes > 5:
            raise InvalidRequest("too much")

    data = layer([folder("Files"), hardlink("Files/k", "Files/Windows/System32/Kernel32.dll")])
    (tmp_path / "t").mkdir()
    with pytest.raises(InvalidRequest, match="too much"):
        unpack_layer(tmp_path / "t", layers.hives, TarReader(ByteStream(iter([data]))), layers.layers, check=check)


@needs_root
def test_whiteouts(layers: Stack) -> None:
    layers.add([file("Files/d/One"), file("Files/d/two"), file("Files/e/x"), file("Files/f")])
    drive = layers.add(
        [
            whiteout("Files/D/ONE"),
            whiteout("Files/d/unheard"),
            whiteout("Files/e"),
            file("Files/E/y"),
            whiteout("Files/F"),
        ]
    )
    assert is_whiteout(drive / "d/One") and is_whiteout(drive / "f") and names(drive / "d") == ["One"]
    assert os.getxattr(drive / "e", "trusted.overlay.opaque") == b"y" and names(drive / "e") == ["y"]


@needs_root
def test_a_whiteout_holds_whatever_comes_and_goes_at_its_place(layers: Stack) -> None:
    layers.add([file("Files/d/x"), file("Files/e/y")])
    drive = layers.add(
        [
            whiteout("Files/d"),
            file("Files/d", b"in between"),
            folder("Files/d"),
            whiteout("Files/e/y"),
            file("Files/e", b"in between"),
            folder("Files/e"),
        ],
        parents=False,
    )
    assert os.getxattr(drive / "d", "trusted.overlay.opaque") == b"y" and names(drive / "d") == []
    assert is_whiteout(drive / "e/y")


@needs_root
def test_an_opaque_directory_holds_no_whiteouts(layers: Stack) -> None:
    layers.add([file("Files/d/x"), file("Files/d/sub/y")])
    drive = layers.add([whiteout("Files/d/x"), whiteout("Files/d/sub/y"), opaque("Files/D"), file("Files/d/New")])
    assert sorted(path.name for path in (drive / "d").rglob("*")) == ["New", "sub"]


def test_directories_and_files_in_each_others_place(layers: Stack) -> None:
    layers.add([file("Files/a/x"), file("Files/b")])
    drive = layers.add([file("Files/A", b"file"), file("Files/B/x", b"in a directory")])
    assert (drive / "a").read_bytes() == b"file" and (drive / "b/x").is_file()
    drive = layers.add(
        [folder("Files/c"), file("Files/c/x"), file("Files/C", b"now"), file("Files/d"), folder("Files/d")],
        parents=False,
    )
    assert (drive / "c").read_bytes() == b"now" and (drive / "d").is_dir()


def test_directories_that_have_no_entry_are_those_below(layers: Stack) -> None:
    below = layers.layers[0] / DRIVE / "Windows"
    below.chmod(0o1777)
    os.setxattr(below, "user.DOSATTRIB", b"0x2")
    os.utime(below, (3, 4))
    drive = layers.add([file("Files/windows/new/x")], parents=False)
    status = (drive / "Windows").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o1777, 4)
    assert os.getxattr(drive / "Windows", "user.DOSATTRIB") == b"0x2"
    assert (drive / "Windows/new").stat().st_mtime == 0


def test_sparse_files_become_sparse(layers: Stack) -> None:
    data = bytes(1 << 20) + b"end"
    drive = layers.add([file("Files/s", data, attributes=0x220), file("Files/hole", bytes(1 << 20), attributes=0x220)])
    assert (drive / "s").read_bytes() == data and (drive / "s").stat().st_blocks < 64
    assert (drive / "hole").read_bytes() == bytes(1 << 20)


def test_entries_elsewhere_are_left_out(layers: Stack) -> None:
    drive = layers.add(
        [folder("./"), folder("./Files"), file("./Files/x"), file("etc/passwd"), file("top")], parents=False
    )
    assert names(drive) == ["x"] and len(layers.warnings) == 2
    assert names(layers.layers[0]) == ["silo"]


@pytest.mark.parametrize(
    "rows",
    [
        [folder("UtilityVM")],
        [file("UtilityVM/Files/EFI/Microsoft/Boot/BCD")],
        [folder("Files"), file("Files/windows/system32/CONFIG/software", b"regf")],
    ],
)
def test_base_layers_are_refused(layers: Stack, rows: list[Member]) -> None:
    with pytest.raises(Unsupported, match="base layer of Windows"):
        layers.add(rows)


@pytest.mark.parametrize(
    "row",
    [
        file("/Files/x"),
        file("/etc/passwd"),
        file("Files/../x"),
        file("Files/.."),
        file("Files/a/../../x"),
        file("Files/nul"),
        file("Files/a:b:c"),
        file("Files/d/x*y"),
        file("Files/trailing."),
        file("Files/back\\slash"),
        file("Files/" + "ü" * 200),
        file("Files"),
        stream("Files/nothing:s", b"x"),
        whiteout("Files/nul"),
        whiteout("Files/.."),
        hardlink("Files/x", "etc/passwd"),
        hardlink("Files/x", "Files/../../etc/passwd"),
        hardlink("Files/x", "Files/X"),
        hardlink("Files/x", "Files/Windows"),
        symlink("Files/x", "a\\" * 3000),
        symlink("Files/x", ""),
        folder("Hives/Software_Delta"),
        Member(name="Files/fifo", kind=tarfile.FIFOTYPE),
        Member(name="Files/node", kind=tarfile.CHRTYPE),
        Member(name="Files/odd", kind=b"Z"),
        file("Files/x", more={"MSWINDOWS.rawsd": "?"}),
    ],
    ids=lambda row: f"{row.name[:20]} {row.link[:20]}",
)
def test_refused(layers: Stack, row: Member) -> None:
    rows = [folder("Files"), folder("Files/Windows"), row]
    with pytest.raises(InvalidRequest) as failure:
        layers.add(rows, parents=False)
    assert repr(row.name)[1:-1] in failure.value.brief and "offset" in failure.value.brief
    assert names(layers.place) in (["base", "layer1"], ["base", "hives", "layer1"])


def test_nothing_is_made_through_a_link(layers: Stack, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(InvalidRequest):
        layers.add([symlink("Files/l", "C:\\Windows"), file("Files/l/x", b"x")], parents=False)
    (layers.place / "layer1").rename(layers.place / "failed")
    (layers.layers[0] / DRIVE / "out").symlink_to(outside)
    drive = layers.add([file("Files/OUT/x", b"x"), symlink("Files/s", "C:\\out\\x")])
    assert names(outside) == [] and (drive / "out/x").read_bytes() == b"x"


def test_a_truncated_layer_is_refused(layers: Stack, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    data = layer([folder("Files"), file("Files/x", bytes(5000))])[:4000]
    with pytest.raises(InvalidRequest, match="truncated"):
        unpack_layer(tmp_path / "t", layers.hives, TarReader(ByteStream(iter([data]))), layers.layers)
