"""`diff` and the layer of `commit`, over what overlayfs really writes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from silo.engine.ports import FileChange
from silo.errors import InvalidRequest
from silo.model.platform import Platform
from silo.model.windows_paths import DRIVE_C, PREFIX
from silo.storage import LocalStorage
from silo.windows.registry_text import compare_registry
from tests.system.storage.places import ID, Place, write

pytestmark = pytest.mark.system


async def gather(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def edit(place: Place, change: Callable[[Path], object]) -> None:
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        change(root)


async def diff(place: Place) -> list[str]:
    letters = "CAD"
    found = await place.storage.changes(ID, place.image)
    return [f"{letters[change.kind]} {change.path}" for change in found]


def furnish(place: Place) -> None:
    write(place.lower / "etc/motd", "old")
    write(place.lower / "etc/keep", "keep")
    write(place.lower / "old/dir/file", "x")
    write(place.lower / "old/other", "x")
    write(place.higher / "usr/lib/so", "x")


async def test_kinds_of_changes(place: Place) -> None:
    furnish(place)
    assert await diff(place) == []

    def change(root: Path) -> None:
        (root / "etc/motd").write_text("new")
        (root / "etc/keep").unlink()
        write(root / "new/deep/file")
        (root / "usr/lib").chmod(0o700)

    await edit(place, change)
    assert await diff(place) == [
        "C /etc",
        "D /etc/keep",
        "C /etc/motd",
        "A /new",
        "A /new/deep",
        "A /new/deep/file",
        "C /usr",
        "C /usr/lib",
    ]


async def test_a_directory_removed_and_made_again(place: Place) -> None:
    furnish(place)

    def change(root: Path) -> None:
        shutil.rmtree(root / "old")
        write(root / "old/dir/fresh")

    await edit(place, change)
    assert await diff(place) == ["C /old", "C /old/dir", "D /old/dir/file", "A /old/dir/fresh", "D /old/other"]


async def test_a_directory_of_the_image_that_was_moved(place: Place) -> None:
    """rename(2) of it works, and what is in it is part of the change: a layer cannot say more than where things are now."""
    furnish(place)
    write(place.higher / "old/dir/more", "y", mode=0o600, owner=(5, 6))
    os.setxattr(place.higher / "old/dir/more", "user.note", b"kept")

    def change(root: Path) -> None:
        (root / "old").rename(root / "moved")
        write(root / "moved/added")
        (root / "moved/dir/file").unlink()
        write(root / "old/again")

    await edit(place, change)
    # into another directory, when all is mounted anew
    await edit(place, lambda root: (root / "moved/dir").rename(root / "usr/lib/dir"))
    assert await diff(place) == [
        "A /moved",
        "A /moved/added",
        "A /moved/other",
        "C /old",
        "A /old/again",
        "D /old/dir",
        "D /old/other",
        "C /usr",
        "C /usr/lib",
        "A /usr/lib/dir",
        "A /usr/lib/dir/more",
    ]
    with tarfile.open(fileobj=io.BytesIO(await gather(place.storage.layer_tar(ID, place.image)))) as archive:
        assert archive.getnames() == [
            "moved",
            "old",
            "usr",
            "old/.wh..wh..opq",
            "old/again",
            "usr/lib",
            "usr/lib/dir",
            "moved/.wh..wh..opq",
            "moved/added",
            "moved/other",
            "usr/lib/dir/.wh..wh..opq",
            "usr/lib/dir/more",
        ]
        more = archive.getmember("usr/lib/dir/more")
        assert (more.mode, more.uid, more.gid, more.pax_headers["SCHILY.xattr.user.note"]) == (0o600, 5, 6, "kept")
        assert archive.extractfile(more).read() == b"y"  # type: ignore[union-attr]
    assert place.views() == ()


async def test_a_moved_directory_that_is_not_read_to_its_end(place: Place) -> None:
    for number in range(200):
        write(place.lower / f"old/f{number:03}", "x" * 10_000)
    await edit(place, lambda root: (root / "old").rename(root / "moved"))
    chunks = place.storage.layer_tar(ID, place.image)
    async for chunk in chunks:
        if b"moved/f1" in chunk:
            break
    assert place.views() != ()
    await chunks.aclose()  # type: ignore[attr-defined]
    assert place.views() == ()


async def test_types_that_change(place: Place) -> None:
    furnish(place)
    (place.lower / "link").symlink_to("etc")

    def change(root: Path) -> None:
        (root / "link").unlink()
        write(root / "link/motd")
        shutil.rmtree(root / "old/dir")
        (root / "old/dir").symlink_to("other")

    await edit(place, change)
    assert await diff(place) == ["C /link", "A /link/motd", "C /old", "C /old/dir"]


async def test_what_a_runtime_leaves_is_no_change(place: Place) -> None:
    furnish(place)

    def change(root: Path) -> None:
        for name in ("dev", "proc", "sys"):
            (root / name).mkdir()
        for name in ("hosts", "hostname", "resolv.conf"):
            (root / "etc" / name).touch()
        write(root / "tmp/.wine-0/server-1/lock")

    await edit(place, change)
    assert await diff(place) == ["A /tmp"]
    with tarfile.open(fileobj=io.BytesIO(await gather(place.storage.layer_tar(ID, place.image)))) as archive:
        assert archive.getnames() == ["etc", "tmp"]


def capability(version: int, root: int = 0) -> bytes:
    value = struct.pack("<5I", version << 24 | 1, 0x2000, 0, 0, 0)
    return value + struct.pack("<I", root) if version == 3 else value


async def test_the_layer_says_it_all(place: Place) -> None:
    furnish(place)
    long_name = "l" * 120 + "ü"

    def change(root: Path) -> None:
        (root / "etc/keep").unlink()
        shutil.rmtree(root / "old")
        write(root / "old/fresh", "fresh", mode=0o4755, owner=(12, 3_000_000))
        os.link(root / "old/fresh", root / "old/linked")
        (root / "sym").symlink_to("t" * 150)
        os.mkfifo(root / "pipe")
        write(root / long_name, "long")
        os.utime(root / long_name, (1000, 1000))
        os.truncate(write(root / "sparse"), 3_000_000)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(root / "sock"))
        server.close()
        write(root / "capable")
        os.setxattr(root / "capable", "security.capability", capability(2))
        os.setxattr(root / "capable", "user.note", b"\x00binary\xff")

    await edit(place, change)
    data = await gather(place.storage.layer_tar(ID, place.image))
    assert data == await gather(place.storage.layer_tar(ID, place.image))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        members = {member.name: member for member in archive}
        assert archive.extractfile("old/fresh").read() == b"fresh"  # type: ignore[union-attr]
        assert archive.extractfile("sparse").read() == b"x" + bytes(2_999_999)  # type: ignore[union-attr]
    assert names == [
        "capable", "etc", long_name, "old", "pipe", "sparse", "sym",
        "etc/.wh.keep",
        "old/.wh..wh..opq", "old/fresh", "old/linked",
    ]  # fmt: skip
    fresh = members["old/fresh"]
    assert (fresh.mode, fresh.uid, fresh.gid) == (0o4755, 12, 3_000_000)
    assert members["old/linked"].islnk() and members["old/linked"].linkname == "old/fresh"
    assert members["sym"].linkname == "t" * 150 and members["pipe"].isfifo()
    assert members[long_name].mtime == 1000
    assert members["etc/.wh.keep"].size == 0 and members["etc"].isdir()
    headers = members["capable"].pax_headers
    assert headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability(2)
    assert headers["SCHILY.xattr.user.note"].encode("utf-8", "surrogateescape") == b"\x00binary\xff"


async def test_the_layer_gives_the_same_root_on_top_of_the_image(place: Place) -> None:
    """Whiteouts and opaque directories mean what they should: a reader of its own applies the layer to a plain copy."""
    furnish(place)

    def change(root: Path) -> None:
        shutil.rmtree(root / "old")
        write(root / "old/dir/fresh")
        (root / "etc/motd").unlink()
        write(root / "usr/more", "m")

    await edit(place, change)
    flat = place.directory / "flat"
    shutil.copytree(place.lower, flat, symlinks=True)
    shutil.copytree(place.higher, flat, symlinks=True, dirs_exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(await gather(place.storage.layer_tar(ID, place.image)))) as archive:
        for member in archive:
            parent, _, name = member.name.rpartition("/")
            if name == ".wh..wh..opq":
                shutil.rmtree(flat / parent)
                (flat / parent).mkdir()
            elif name.startswith(".wh."):
                (flat / parent / name[4:]).unlink()
            else:
                archive.extract(member, flat)
    async with place.storage.mounted(place.rootfs, running_root=None) as root:

        def tree(top: Path) -> list[str]:
            return sorted(str(path.relative_to(top)) for path in top.rglob("*"))

        assert tree(flat) == tree(root)


def windows(place: Place, compare: Callable[[str, bytes, bytes], list[FileChange]] | None) -> None:
    place.image = msgspec.structs.replace(place.image, platform=Platform(os="windows", architecture="amd64"))
    place.storage = LocalStorage(
        data_root=place.data_root,
        run_root=place.run_root,
        volumes=place.database.documents("other", object),  # type: ignore[arg-type]
        compare_registry=compare,
    )


async def test_windows_words(place: Place) -> None:
    prefix = place.lower / PREFIX.lstrip("/")
    write(place.lower / DRIVE_C.lstrip("/") / "windows/win.ini")
    write(prefix / "system.reg", "before")
    write(prefix / "user.reg", "same")
    seen = []

    def compare(name: str, before: bytes, after: bytes) -> list[FileChange]:
        seen.append((name, before, after))
        return [FileChange(kind=1, path="HKLM\\Software\\New")] if name == "system.reg" else []

    windows(place, compare)

    def change(root: Path) -> None:
        drive = root / DRIVE_C.lstrip("/")
        (drive / "windows/win.ini").unlink()
        write(drive / "Data/x")
        write(root / PREFIX.lstrip("/") / "system.reg", "after")
        write(root / PREFIX.lstrip("/") / "user.reg", "same")
        write(root / "run/something")

    await edit(place, change)
    assert await diff(place) == [
        "A C:\\Data",
        "A C:\\Data\\x",
        "C C:\\windows",
        "D C:\\windows\\win.ini",
        "A HKLM\\Software\\New",
    ]
    assert seen == [("system.reg", b"before", b"after"), ("user.reg", b"same", b"same")]
    windows(place, None)
    assert (await diff(place))[-1] == "C system.reg"


async def test_names_in_other_letters_are_the_same_names(place: Place) -> None:
    below = place.lower / DRIVE_C.lstrip("/")
    for path in ("data/Name.txt", "data/Gone.txt", "old/sub/Kept.txt", "old/Gone.txt", "same/File.txt"):
        write(below / path)
    windows(place, None)

    def change(root: Path) -> None:
        drive = root / DRIVE_C.lstrip("/")
        (drive / "data/Name.txt").unlink()
        write(drive / "data/NAME.TXT")
        (drive / "data/Gone.txt").unlink()
        shutil.rmtree(drive / "old")
        write(drive / "OLD/SUB/KEPT.TXT")
        write(drive / "OLD/new.txt")
        write(drive / "same/Other.txt")

    await edit(place, change)
    assert await diff(place) == [
        "C C:\\OLD",
        "C C:\\OLD\\SUB",
        "C C:\\OLD\\SUB\\KEPT.TXT",
        "A C:\\OLD\\new.txt",
        "C C:\\data",
        "D C:\\data\\Gone.txt",
        "C C:\\data\\NAME.TXT",
        "C C:\\same",
        "A C:\\same\\Other.txt",
    ]


async def test_real_registry_text(place: Place) -> None:
    """Another user's registry is compared with that user's own; a boot alone is no change."""
    prefix = place.lower / PREFIX.lstrip("/")
    header = "WINE REGISTRY Version 2\n\n"
    write(prefix / "user.reg", header + '[Env] 1\n"TEMP"="C:\\\\users\\\\ContainerAdministrator"\n\n[App] 1\n')
    user = header + '[Env] 1\n"TEMP"="C:\\\\users\\\\ContainerUser"\n\n[App] 1\n'
    write(place.lower / "silo/users/ContainerUser/user.reg", user)
    windows(place, compare_registry)
    rewritten = user.replace("] 1", "] 2") + '[Volatile Environment] 2\n"X"="1"\n'

    def change(root: Path) -> None:
        write(root / PREFIX.lstrip("/") / "user.reg", rewritten)
        (root / PREFIX.lstrip("/") / "dosdevices").mkdir()
        (root / PREFIX.lstrip("/") / "dosdevices/com1").symlink_to("/dev/ttyS0")
        write(root / PREFIX.lstrip("/") / "wineserver", "tmp")

    await edit(place, change)
    assert await diff(place) == []
    with tarfile.open(fileobj=io.BytesIO(await gather(place.storage.layer_tar(ID, place.image)))) as archive:
        names = archive.getnames()
    assert names[-2:] == ["silo/prefix/dosdevices", "silo/prefix/user.reg"]
    await edit(place, lambda root: write(root / PREFIX.lstrip("/") / "user.reg", rewritten + "\n[New] 3\n"))
    assert await diff(place) == ["A HKCU\\New"]


async def test_export_holds_the_whole_root(place: Place) -> None:
    furnish(place)
    await edit(place, lambda root: (root / "etc/keep").unlink())
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        data = await gather(place.storage.export_tar(root))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert {"etc", "etc/motd", "old/dir/file", "usr/lib/so"} <= set(names)
    assert "etc/keep" not in names and not any(".wh." in name for name in names)


async def test_an_abandoned_export_lets_go(place: Place) -> None:
    for number in range(200):
        write(place.lower / f"f{number}", "x" * 10_000)
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        chunks = place.storage.export_tar(root)
        await chunks.__anext__()
        await chunks.aclose()  # type: ignore[attr-defined]
    assert not place.views()


async def test_a_directory_in_the_place_of_a_registry_file_is_none(place: Place) -> None:
    write(place.lower / PREFIX.lstrip("/") / "system.reg", "WINE REGISTRY Version 2\n\n[A] 1\n")
    windows(place, lambda *words: list(compare_registry(*words)))

    def change(root: Path) -> None:
        (root / PREFIX.lstrip("/") / "system.reg").unlink()
        (root / PREFIX.lstrip("/") / "system.reg").mkdir()

    await edit(place, change)
    assert await diff(place) == ["D HKLM\\A"]


async def test_files_of_an_image(place: Place) -> None:
    furnish(place)
    write(place.higher / "etc/motd", "newer")
    (place.lower / "link").symlink_to("/etc/motd")
    os.mkfifo(place.lower / "pipe")
    paths = ("/etc/motd", "/etc/keep", "/etc/none", "/etc", "/link", "/link/x", "/pipe")
    found = await place.storage.image_files(place.image, paths, limit_bytes=10)
    assert found == {"/etc/motd": b"newer", "/etc/keep": b"keep"} and place.views() == ()
    with pytest.raises(InvalidRequest, match="/etc/motd is larger than 4 bytes"):
        await place.storage.image_files(place.image, ("/etc/motd",), limit_bytes=4)
    alone = msgspec.structs.replace(place.image, layer_paths=(place.lower,))
    assert await place.storage.image_files(alone, ("/etc/motd",), limit_bytes=10) == {"/etc/motd": b"old"}
