"""A container's changes as a Windows layer, and what comes of it when it is unpacked again."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.host.beneath import Links, Root
from silo.model.tarstream import ByteStream, TarReader
from silo.storage.tar_tree import write_layer as write_scratch
from silo.storage.views import Views
from silo.windows.layers import RegistryChanges, convert_layer, unpack_layer
from tests.support import images
from tests.support.images import Entry
from tests.support.windows_layers import (
    Member,
    descriptor,
    file,
    folder,
    hardlink,
    layer,
    members,
    sid,
    stream,
    symlink,
    with_parents,
)

DRIVE = "silo/prefix/drive_c"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the effective user id is not 0")


def convert(
    entries: Sequence[Entry],
    below: Sequence[Path] = (),
    warnings: list[str] | None = None,
    hives: Mapping[str, bytes] | None = None,
) -> dict[str, Member]:
    data = convert_bytes(images.layer_tar(entries), below, warnings, hives)
    return {member.name: member for member in members(data)}


def convert_bytes(
    data: bytes, below: Sequence[Path], warnings: list[str] | None = None, hives: Mapping[str, bytes] | None = None
) -> bytes:
    told = [] if warnings is None else warnings
    return b"".join(
        convert_layer(iter([data]), below, registry_diff=lambda _: RegistryChanges(hives or {}), warn=told.append)
    )


def on_drive(*entries: Entry) -> list[Entry]:
    above = [images.directory(DRIVE[:count]) for count, letter in enumerate(DRIVE + "/") if letter == "/"]
    return [*above, *entries]


def at(path: str) -> str:
    return f"{DRIVE}/{path}"


def unpacked(target: Path, rows: Sequence[Member], below: Sequence[Path] = ()) -> Path:
    return unpacked_bytes(target, layer(with_parents(rows)), below)


def unpacked_bytes(target: Path, data: bytes, below: Sequence[Path]) -> Path:
    target.mkdir()
    unpack_layer(target, target.with_suffix(".hives"), TarReader(ByteStream(iter([data]))), below)
    return target


def test_only_the_drive_and_the_registry_are_taken(tmp_path: Path) -> None:
    asked: list[Mapping[str, bytes]] = []

    def diff(files: Mapping[str, bytes]) -> RegistryChanges:
        asked.append(files)
        return RegistryChanges({"Software_Delta": b"regf"}, {"Users/ContainerUser/NTUSER.DAT": b"own"})

    entries = [
        images.directory("etc"),
        images.file("etc/passwd", "x"),
        images.file("silo/prefix/system.reg", "WINE"),
        images.file("silo/prefix/.update-timestamp", "1"),
        images.file("silo/users/ContainerUser/user.reg", "USER"),
        images.whiteout("silo/prefix/userdef.reg"),
        *on_drive(images.directory(at("d")), images.file(at("d/x"), "data")),
    ]
    data = b"".join(convert_layer(iter([images.layer_tar(entries)]), [], registry_diff=diff))
    found = {member.name: member.data for member in members(data)}
    profile = ["Files/Users", "Files/Users/ContainerUser", "Files/Users/ContainerUser/NTUSER.DAT"]
    assert list(found) == ["Files", "Files/d", "Files/d/x", *profile, "Hives", "Hives/Software_Delta"]
    assert found[profile[-1]] == b"own"
    assert found["Files/d/x"] == b"data" and found["Hives/Software_Delta"] == b"regf"
    assert asked == [{"system.reg": b"WINE", "users/ContainerUser/user.reg": b"USER"}]


def test_a_name_made_again_in_another_case_comes_once(tmp_path: Path) -> None:
    """To Windows it is the same name: a whiteout beside it would hide the new one."""
    below = tmp_path / "below"
    for name in ("dir/old", "dir/sub/deep", "dir/kept", "was/in"):
        (below / DRIVE / name).parent.mkdir(parents=True, exist_ok=True)
        (below / DRIVE / name).write_text("x")
    (below / DRIVE / "Case.txt").write_text("x")
    entries = [
        images.whiteout(at("Case.txt")),
        images.whiteout(at("dir")),
        images.whiteout(at("was")),
        images.file(at("CASE.TXT"), "new"),
        images.directory(at("DIR")),
        images.file(at("DIR/Kept"), "new"),
        images.directory(at("DIR/Sub")),
        images.file(at("WAS"), "a file now"),
    ]
    found = list(convert(entries, [below]))
    assert found == [
        "Files",
        "Files/CASE.TXT",
        "Files/DIR",
        "Files/DIR/Kept",
        "Files/DIR/Sub",
        "Files/WAS",
        "Files/DIR/.wh.old",
        "Files/DIR/Sub/.wh.deep",
        "Hives",
    ]


def test_what_wine_makes_of_data_streams_is_left_out() -> None:
    told: list[str] = []
    found = convert([images.file(at("f.txt"), "x"), images.file(at("f.txt:Zone.Identifier"), "y")], warnings=told)
    assert list(found) == ["Files", "Files/f.txt", "Hives"]
    assert len(told) == 1 and "Zone.Identifier" in told[0]


def test_nothing_changed() -> None:
    assert list(convert([])) == ["Files", "Hives"]


def test_parents_come_first_even_if_the_archive_has_none(tmp_path: Path) -> None:
    below = tmp_path / "below"
    (below / DRIVE / "a").mkdir(parents=True)
    os.setxattr(below / DRIVE / "a", "user.DOSATTRIB", b"0x2")
    found = convert([images.file(at("a/b/x"))], [below])
    assert list(found) == ["Files", "Files/a", "Files/a/b", "Files/a/b/x", "Hives"]
    assert found["Files/a"].records["MSWINDOWS.fileattr"] == "18"


def test_attributes_and_owners(tmp_path: Path) -> None:
    found = convert(
        on_drive(
            images.file(at("plain"), uid=0),
            images.file(at("locked"), mode=0o555, uid=0),
            Entry(name=at("hidden"), pax={"SCHILY.xattr.user.DOSATTRIB": "0x2"}, uid=1000),
            Entry(name=at("damaged"), pax={"SCHILY.xattr.user.DOSATTRIB": "oops", "SCHILY.xattr.user.silo.ntfs": "?"}),
        )
    )
    attributes = {name: member.records.get("MSWINDOWS.fileattr") for name, member in found.items()}
    assert [attributes[f"Files/{name}"] for name in ("plain", "locked", "hidden", "damaged")] == [
        "32",
        "33",
        "34",
        "32",
    ]
    assert found["Files/plain"].records["MSWINDOWS.rawsd"] != found["Files/hidden"].records["MSWINDOWS.rawsd"]


@needs_root
def test_a_changed_file_keeps_what_windows_knew_of_it(tmp_path: Path) -> None:
    big = descriptor(sid(18), size=4000)
    rows = [
        folder("Files/d", attributes=0x11),
        file("Files/d/x", b"old", attributes=0x2027, created="5.5", descriptor=big, eas={"E": b"1"}),
        stream("Files/d/x:s", b"small"),
        stream("Files/d/x:large", bytes(9000)),
    ]
    below = unpacked(tmp_path / "below", rows)
    upper = tmp_path / "upper"
    (upper / DRIVE / "d").mkdir(parents=True)
    copy, original = upper / DRIVE / "d/renamed", below / DRIVE / "d/x"
    copy.write_bytes(b"new")
    copy.chmod(0o444)
    for name in os.listxattr(original):  # as overlayfs copies a file up
        os.setxattr(copy, name, os.getxattr(original, name))
    with Root(upper, links=Links.REFUSE) as scratch:
        data = convert_bytes(
            b"".join(write_scratch(scratch, Views(tmp_path / "views").setting(upper, [below]))), [below]
        )
    found = {member.name: member for member in members(data)}
    expected = {member.name: member for member in rows}
    assert found["Files/d/renamed"].data == b"new"
    assert found["Files/d/renamed"].records == {**expected["Files/d/x"].records, "MSWINDOWS.fileattr": "8231"}
    assert found["Files/d/renamed:large"].data == bytes(9000) and found["Files/d/renamed:s"].data == b"small"
    assert found["Files/d"].records["MSWINDOWS.fileattr"] == "17"


def test_what_a_container_forges_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "silo/kept").mkdir(parents=True)
    (tmp_path / DRIVE).mkdir(parents=True)
    (tmp_path / "silo/kept" / ("0" * 64)).symlink_to("/etc/passwd")
    warnings: list[str] = []
    for value in ("@" + "0" * 64 + ":5", "@" + "a" * 64 + ":5", "@../../x:1", "\x81"):
        found = convert(on_drive(Entry(name=at("x"), pax={"SCHILY.xattr.user.silo.ntfs": value})), [tmp_path], warnings)
        assert "Files/x" in found
    assert len(warnings) == 4


@needs_root
def test_links(tmp_path: Path) -> None:
    rows = [symlink("Files/kept", "\\??\\C:\\WINDOWS", junction=True, attributes=1040), folder("Files/Windows")]
    below = unpacked(tmp_path / "below", rows)
    warnings: list[str] = []
    found = convert(
        on_drive(
            images.symlink(at("kept"), "Windows"),
            images.symlink(at("dir"), "Windows"),
            images.symlink(at("file"), f"/{DRIVE}/Windows/x"),
            images.symlink(at("out"), "/etc"),
            images.hardlink(at("also"), at("dir")),
            Entry(name=at("pipe"), kind=tarfile.FIFOTYPE),
        ),
        [below],
        warnings,
    )
    links = {name: (member.link, member.records["MSWINDOWS.fileattr"]) for name, member in found.items() if member.link}
    assert links == {
        "Files/kept": ("\\??\\C:\\WINDOWS", "1040"),
        "Files/dir": ("Windows", "1040"),
        "Files/file": ("C:\\Windows\\x", "1056"),
        "Files/also": ("Windows", "1040"),
    }
    assert "MSWINDOWS.mountpoint" in found["Files/kept"].records
    assert len(warnings) == 2 and "pipe" in warnings[0] and "out" in warnings[1]


@needs_root
def test_opaque_directories_become_whiteouts(tmp_path: Path) -> None:
    rows = [file(f"Files/{name}") for name in ("d/a", "d/Same", "d/sub/x", "d/sub/y", "d/gone/z", "e/f")]
    below = unpacked(tmp_path / "below", rows)
    data = convert_bytes(
        images.layer_tar(
            on_drive(
                images.directory(at("d")),
                images.whiteout(at("e/f")),
                images.whiteout(at("e/never")),
                Entry(name=at("d/.wh..wh..opq")),
                images.file(at("d/SAME"), "new"),
                images.directory(at("d/sub")),
                images.file(at("d/sub/Y")),
            )
        ),
        [below],
    )
    whiteouts = sorted(member.name for member in members(data) if ".wh." in member.name)
    assert whiteouts == ["Files/d/.wh.a", "Files/d/.wh.gone", "Files/d/sub/.wh.x", "Files/e/.wh.f"]
    again = unpacked_bytes(tmp_path / "again", data, [below])
    assert (again / DRIVE / "d/Same").read_text() == "new"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([images.directory(at("nul"))], "does not allow"),
        ([images.file(at("Windows/System32/config/SAM"))], "base layer"),
        ([images.hardlink(at("x"), "etc/passwd")], "not on C:"),
        ([images.file(at("d/x")), Entry(name=at("d/.wh..wh..opq"))], "opaque mark"),
        ([images.file("../x")], "leads out"),
        ([images.file("silo/prefix/system.reg", bytes((64 << 20) + 1))], "67108865"),
        ([images.file(f"silo/users/u{number}/user.reg") for number in range(17)], "registry files"),
    ],
)
def test_refused(entries: list[Entry], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        convert(entries)


def test_equal_changes_give_equal_bytes(tmp_path: Path) -> None:
    data = images.layer_tar(on_drive(images.file(at("x"), "x"), images.symlink(at("l"), "x"), images.file(at("y"))))
    assert convert_bytes(data, []) == convert_bytes(data, [])


def test_hard_links_stay(tmp_path: Path) -> None:
    found = convert(on_drive(images.file(at("x"), "x"), images.hardlink(at("y"), at("x"))))
    assert found["Files/y"].kind == tarfile.LNKTYPE and found["Files/y"].link == "Files/x"
    drive = unpacked(tmp_path / "t", [file("Files/x", b"x"), hardlink("Files/y", "Files/x")]) / DRIVE
    assert (drive / "y").stat().st_ino == (drive / "x").stat().st_ino
