"""`docker cp`: what is found and read, what is written, and what hostile archives do not reach."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from silo.engine.ports import VolumeInfo
from silo.errors import InvalidRequest, NoSpace, NotFound
from silo.host import mounts
from silo.model.mount import MountKind, MountRequest
from silo.model.windows_paths import DRIVE_C
from tests.system.storage.places import Place, listed, write

pytestmark = pytest.mark.system


async def gather(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def tar(*entries: tuple[str, Any], mode: str = "w", **words: Any) -> bytes:
    """(name, data) pairs; data is bytes, None for a directory, or a dictionary of TarInfo's attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = 0o640, 1000, 1001, 1_700_000_000
            data = b""
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(content, bytes):
                data = content
            else:
                for key, value in content.items():
                    setattr(info, key, value)
            for key, value in words.items():
                setattr(info, key, value)
            info.size = len(data) or info.size
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link(target: str) -> dict[str, object]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


async def put(place: Place, path: str, data: bytes, *, keep: bool = False, strict: bool = False) -> None:
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        await place.storage.write_archive(root, path, pieces(data), no_overwrite_dir_non_dir=strict, copy_uid_gid=keep)


async def get(place: Place, path: str) -> tuple[dict[str, object], list[str]]:
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        described, chunks = await place.storage.read_archive(root, path)
        data = await gather(chunks)
        assert described == await place.storage.stat_archive(root, path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return described, archive.getnames()


def furnish(place: Place) -> None:
    write(place.lower / "srv/app/main", "main", mode=0o4755)
    write(place.lower / "srv/app/sub/x", "x")
    (place.lower / "srv/link").symlink_to("/srv/app")
    (place.lower / "srv/out").symlink_to("../../../../../../etc/passwd")
    (place.lower / "lib").symlink_to("usr/lib")
    write(place.lower / "usr/lib/so", "so")


async def test_out(place: Place) -> None:
    furnish(place)
    described, names = await get(place, "/srv/app")
    assert names == ["app", "app/main", "app/sub", "app/sub/x"]
    assert described["name"] == "app" and described["mode"] == 1 << 31 | 0o755
    described, names = await get(place, "/srv/app/main")
    assert (names, described["size"], described["mode"]) == (["main"], 4, 1 << 23 | 0o755)
    assert str(described["mtime"]).endswith("Z") and described["linkTarget"] == ""
    described, names = await get(place, "/srv/link")
    assert (names, described["name"], described["linkTarget"]) == (["link"], "link", "/srv/app")
    assert int(str(described["mode"])) & 1 << 27
    assert (await get(place, "/srv/link/"))[1] == ["link", "link/main", "link/sub", "link/sub/x"]
    described, names = await get(place, "/srv/app/.")
    assert (names, described["name"]) == ([".", "./main", "./sub", "./sub/x"], ".")
    assert (await get(place, "/lib/so"))[1] == ["so"]
    described, names = await get(place, "/srv/out")
    assert described["linkTarget"] == "/etc/passwd" and names == ["out"]
    described, names = await get(place, "/")
    assert described["name"] == "/" and "/srv/app/main" in names


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/missing", NotFound),
        ("/srv/missing/x", NotFound),
        ("/srv/app/main/", InvalidRequest),
        ("/srv/app/main/x", InvalidRequest),
        ("/srv/out/x", NotFound),
        ("/loop/x", InvalidRequest),
    ],
)
async def test_out_of_nowhere(place: Place, path: str, kind: type[Exception]) -> None:
    furnish(place)
    (place.lower / "loop").symlink_to("loop")
    with pytest.raises(kind):
        await get(place, path)
    assert not place.views()


async def test_in(place: Place) -> None:
    furnish(place)
    data = tar(
        ("./", None),
        ("dir", None),
        ("dir/file", b"new" * 1000),
        ("dir/hard", {"type": tarfile.LNKTYPE, "linkname": "dir/file"}),
        ("dir/sym", link("../../anywhere")),
        ("dir/pipe", {"type": tarfile.FIFOTYPE}),
        ("deep/er/made", b"x"),
        ("lib/merged", b"x"),
    )
    await put(place, "/", data)
    made = place.upper / "dir/file"
    status = made.stat()
    assert made.read_text() == "new" * 1000 and status.st_nlink == 2
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o640)
    assert status.st_mtime == 1_700_000_000 == (place.upper / "dir").stat().st_mtime
    assert str((place.upper / "dir/sym").readlink()) == "../../anywhere"
    assert stat.S_ISFIFO((place.upper / "dir/pipe").stat().st_mode)
    assert (place.upper / "deep/er/made").exists()
    assert (place.upper / "usr/lib/merged").exists() and not (place.upper / "lib").exists()
    await put(place, "/srv/link", tar(("own", b"x")), keep=True)
    own = (place.upper / "srv/app/own").stat()
    assert (own.st_uid, own.st_gid) == (1000, 1001)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
async def test_in_compressed(place: Place, mode: str) -> None:
    await put(place, "/", tar(("file", b"data"), mode=mode))
    assert (place.upper / "file").read_bytes() == b"data"


async def test_replacing(place: Place) -> None:
    furnish(place)
    await put(place, "/srv", tar(("app", b"now a file")))
    assert (place.upper / "srv/app").read_bytes() == b"now a file"
    await put(place, "/srv", tar(("app", None), ("app/x", b"x"), ("link", b"a file")))
    assert (place.upper / "srv/app/x").exists() and (place.upper / "srv/link").read_bytes() == b"a file"
    with pytest.raises(InvalidRequest, match="cannot overwrite directory"):
        await put(place, "/srv", tar(("app", b"x")), strict=True)
    with pytest.raises(InvalidRequest, match="cannot overwrite non-directory"):
        await put(place, "/srv", tar(("link", None)), strict=True)
    await put(place, "/", tar(("lib", None), ("lib/x", b"x")))
    assert (place.upper / "usr/lib/x").exists()


async def test_in_to_nowhere(place: Place) -> None:
    furnish(place)
    with pytest.raises(NotFound):
        await put(place, "/missing", tar(("x", b"x")))
    with pytest.raises(InvalidRequest, match="not a directory"):
        await put(place, "/srv/app/main", tar(("x", b"x")))


@pytest.mark.parametrize(
    "data",
    [
        tar(("../escape", b"x")),
        tar(("a/../../escape", b"x")),
        tar(("/../escape", b"x")),
        tar(("l", link("/")), ("l/escape", b"x")),
        tar(("l", link("..")), ("l/escape", b"x")),
        tar(("h", {"type": tarfile.LNKTYPE, "linkname": "../outside"})),
        tar(("h", {"type": tarfile.LNKTYPE, "linkname": "/missing"})),
        tar(("h", {"type": tarfile.LNKTYPE, "linkname": "h"})),
        tar(("d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
        tar(("d", {"type": tarfile.BLKTYPE, "devmajor": 8})),
        tar(("x" * 300, b"x")),
        tar(("./", b"a file as the directory itself")),
        tar((".", link("/etc"))),
        tar(("f", {"pax_headers": {"mtime": "nan"}})),
        b"no tar at all" * 100,
        b"",
        tar(("f", b"x" * 5000))[:3000],
        tar(("f", b"x" * 512), ("g", b"y"))[:1024] + b"garbage" * 200,
        tar(("f", b"x" * 5000), mode="w:gz")[:60],
    ],
)
async def test_hostile_archives(place: Place, data: bytes) -> None:
    write(place.directory / "outside")
    write(place.lower / "inside/x")
    with pytest.raises(InvalidRequest):
        await put(place, "/inside", data)
    assert not place.views()
    assert not list(place.directory.rglob("escape"))
    assert (place.directory / "outside").stat().st_nlink == 1


async def test_a_directory_takes_the_place_of_the_archives_own_link(place: Place) -> None:
    write(place.lower / "inside/x")
    await put(place, "/inside", tar(("l", link("/tmp")), ("l", None), ("l/sub/file", b"x")))
    assert (place.upper / "inside/l/sub/file").exists() and not (place.upper / "tmp").exists()


async def test_absolute_names_are_of_the_directory(place: Place) -> None:
    write(place.lower / "inside/x")
    await put(place, "/inside", tar(("/etc/cron", b"x"), ("C:\\odd", b"x")))
    assert (place.upper / "inside/etc/cron").exists() and (place.upper / "inside/C:\\odd").exists()


async def test_headers_that_claim_too_much(place: Place) -> None:
    def header(kind: bytes, size: int) -> bytes:
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)

    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        with pytest.raises(InvalidRequest, match="extended header"):
            await put(place, "/", header(kind, 1 << 40) + bytes(10_000))
    with pytest.raises(InvalidRequest):
        await put(place, "/", header(tarfile.GNUTYPE_SPARSE, 1 << 50) + bytes(10_000))
    with pytest.raises(InvalidRequest):
        await put(place, "/", header(tarfile.REGTYPE, 1 << 50) + bytes(10_000))
    assert listed(place.upper) == []


async def test_a_container_that_swaps_directories_for_links(place: Place) -> None:
    """The directory turns into a link out of the container between two entries of one archive."""
    victim = place.directory / "victim"
    victim.mkdir()
    write(place.lower / "data/x")

    async with place.storage.mounted(place.rootfs, running_root=None) as root:

        async def chunks() -> AsyncIterator[bytes]:
            whole = tar(("sub", None), ("sub/a", b"a" * 600_000), ("sub/new/b", b"b" * 600_000))
            yield whole[:300_000]
            await asyncio.sleep(0.05)
            shutil.rmtree(root / "data/sub")
            (root / "data/sub").symlink_to(victim)
            yield whole[300_000:]

        with contextlib.suppress(InvalidRequest):
            await place.storage.write_archive(
                root, "/data", chunks(), no_overwrite_dir_non_dir=False, copy_uid_gid=False
            )
    assert listed(victim) == []


async def test_windows_names(place: Place) -> None:
    drive = place.lower / DRIVE_C.lstrip("/")
    write(drive / "windows/Temp/Old.txt", "old")
    write(drive / "Data/y")
    await put(
        place,
        f"{DRIVE_C}/WINDOWS",
        tar(("temp", None), ("TEMP/old.TXT", b"new"), ("Sub\\dir\\x", b"x"), ("sub/DIR/y", b"y")),
    )
    upper = place.upper / DRIVE_C.lstrip("/")
    assert (upper / "windows/Temp/Old.txt").read_bytes() == b"new"
    assert listed(upper / "windows") == ["Sub", "Temp"] and listed(upper / "windows/Sub/dir") == ["x", "y"]
    await put(place, DRIVE_C, tar(("c:\\data\\deep\\z", b"z")))
    assert (upper / "Data/deep/z").exists()
    described, names = await get(place, f"{DRIVE_C}/windows/temp/OLD.TXT")
    assert described["name"] == "Old.txt" and names == ["Old.txt"]
    for name in ("C:\\..\\..\\..\\x", "..\\..\\..\\x"):
        with pytest.raises(InvalidRequest):
            await put(place, DRIVE_C, tar((name, b"x")))


async def test_a_cancelled_copy_lets_go(place: Place) -> None:
    waiting = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield tar(("file", b"x" * 100_000))[:50_000]
        waiting.set()
        await asyncio.sleep(0.5)
        yield b"more"

    async def copy() -> None:
        async with place.storage.mounted(place.rootfs, running_root=None) as root:
            await place.storage.write_archive(root, "/", chunks(), no_overwrite_dir_non_dir=False, copy_uid_gid=False)

    task = asyncio.create_task(copy())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not place.views() and listed(place.upper) == []


async def test_a_client_that_goes_away(place: Place) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield tar(("file", b"x" * 100_000))[:50_000]
        raise ConnectionResetError("gone")

    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        with pytest.raises(Exception, match="gone"):
            await place.storage.write_archive(root, "/", chunks(), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
    assert listed(place.upper) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts.mount("tmpfs", disk, "tmpfs", 0, "size=2m,nr_inodes=300")
    try:
        yield disk
    finally:
        for point in reversed(mounts.list_mount_points(disk)):
            mounts.unmount(point)


async def test_no_space(small_disk: Path) -> None:
    place = Place(small_disk)
    with pytest.raises(NoSpace):
        await put(place, "/", tar(("file", b"x" * 3_000_000)))
    assert listed(place.upper) == []
    place.database.close()


@pytest.fixture
def user_namespace() -> Iterator[int]:
    with subprocess.Popen(["unshare", "-U", "sleep", "60"], stdin=subprocess.DEVNULL) as holder:
        path = Path(f"/proc/{holder.pid}")
        own = Path("/proc/self/ns/user").readlink()
        while (path / "ns/user").readlink() == own:
            pass
        for name in ("uid_map", "gid_map"):
            (path / name).write_text("0 200000 65536\n")
        descriptor = os.open(path / "ns/user", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            holder.kill()


async def test_a_running_container_in_a_user_namespace(place: Place, user_namespace: int) -> None:
    """Its root shows ids shifted: what is written belongs to the container's users, what is read names them."""
    write(place.lower / "srv/file", owner=(5, 6))
    merged = place.directory / "merged"
    merged.mkdir()
    with (
        mounts.clone_idmapped(place.lower, user_namespace) as lower,
        mounts.clone_idmapped(place.rootfs.scratch, user_namespace) as scratch,
    ):
        mounts.mount_overlay(
            merged,
            lowers=[f"/proc/self/fd/{lower}"],
            upper=f"/proc/self/fd/{scratch}/upper",
            work=f"/proc/self/fd/{scratch}/work",
            owner=200_000,
        )
    assert (merged / "srv/file").stat().st_uid == 200_005
    async with place.storage.mounted(place.rootfs, running_root=merged) as root:
        for keep, name in ((False, "plain"), (True, "kept")):
            await place.storage.write_archive(
                root,
                "/srv",
                pieces(tar((name, b"x"), (f"{name}-dir/sub", b"y"))),
                no_overwrite_dir_non_dir=False,
                copy_uid_gid=keep,
            )
        _, chunks = await place.storage.read_archive(root, "/srv")
        exported = await gather(place.storage.export_tar(root))
        with tarfile.open(fileobj=io.BytesIO(await gather(chunks))) as archive:
            owners = {member.name: (member.uid, member.gid) for member in archive}
    assert (merged / "srv/plain").stat().st_uid == 200_000
    assert owners["srv/file"] == (5, 6) and owners["srv/plain"] == (0, 0) and owners["srv/kept"] == (1000, 1001)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        assert (archive.getmember("srv/kept").uid, archive.getmember("srv/file").gid) == (1000, 6)
    on_disk = (place.upper / "srv/plain").stat()
    assert (on_disk.st_uid, on_disk.st_gid) == (0, 0) and (place.upper / "srv/plain-dir").stat().st_uid == 0
    mounts.unmount(merged)


async def test_no_space_for_volumes_and_scratches(small_disk: Path) -> None:
    place = Place(small_disk)
    write(place.lower / "data/a", "a" * 600_000)
    write(place.lower / "data/b", "b" * 600_000)
    made = place.storage.create_volume(VolumeInfo(name="vol", path=Path("/"), created=""))
    request = MountRequest(kind=MountKind.VOLUME, target="/data", source="vol")
    with pytest.raises(NoSpace):
        await place.storage.plan_mount(request, "/data", fill_from=place.rootfs)
    assert listed(made.path) == [] and listed(made.path.parent) == ["_data"] and not place.views()
    filler = place.data_root / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(4_000_000))
    with contextlib.suppress(OSError):
        for number in range(2_000_000):
            (place.data_root / f"i{number}").touch()
    with pytest.raises(NoSpace):
        place.storage.create_scratch("b" * 64)
    assert not (place.data_root / "containers" / ("b" * 64)).exists()
    with pytest.raises(NoSpace):
        place.storage.create_volume(VolumeInfo(name="more", path=Path("/"), created=""))
    assert listed(place.data_root / "volumes") == ["vol"]
    place.database.close()
