"""Views of stopped containers, volumes and their filling, sources of mounts, over real overlayfs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from silo.engine.ports import VolumeInfo
from silo.errors import Conflict, HostError, InvalidRequest, NotFound, Unsupported
from silo.model.mount import MountKind, MountRequest
from silo.model.runtime import ScratchOwner
from silo.model.windows_paths import DRIVE_C
from tests.system.storage.places import ID, Place, listed, write

pytestmark = pytest.mark.system


def volume(name: str = "vol", **words: object) -> VolumeInfo:
    return VolumeInfo(name=name, path=Path("/"), created="2026-01-01T00:00:00Z", **words)  # type: ignore[arg-type]


def request(kind: MountKind = MountKind.VOLUME, **words: object) -> MountRequest:
    return MountRequest(**({"kind": kind, "target": "/data", "source": "vol"} | words))  # type: ignore[arg-type]


async def test_a_view_shows_and_changes_the_root(place: Place) -> None:
    write(place.lower / "etc/a", "lower")
    write(place.higher / "etc/a", "higher")
    write(place.lower / "etc/b", "b", owner=(5, 6))
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        async with place.storage.mounted(place.rootfs, running_root=None) as again:
            assert again == root
        assert (root / "etc/a").read_text() == "higher"
        assert (root / "etc/b").stat().st_uid == 5
        (root / "etc/b").unlink()
        (root / "new").write_text("n")
        assert place.views()
    assert not place.views() and not list((place.run_root / "views").iterdir())
    assert (place.upper / "new").read_text() == "n"
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        assert not (root / "etc/b").exists()


async def test_a_view_is_gone_after_a_failure_or_cancellation(place: Place) -> None:
    with pytest.raises(RuntimeError):
        async with place.storage.mounted(place.rootfs, running_root=None):
            raise RuntimeError
    assert not place.views()
    entered = asyncio.Event()

    async def look() -> None:
        async with place.storage.mounted(place.rootfs, running_root=None):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(look())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not place.views()


async def test_one_after_the_other_without_a_gap(place: Place) -> None:
    """Many come and go at once: never two mounts of one scratch, none left."""
    write(place.lower / "f")

    async def look(number: int) -> None:
        await asyncio.sleep(number % 7 / 1000)
        async with place.storage.mounted(place.rootfs, running_root=None) as root:
            assert len(place.views()) == 1 and (root / "f").exists()
            await asyncio.sleep(number % 3 / 1000)

    tasks = [asyncio.create_task(look(number)) for number in range(60)]
    for number in range(0, 60, 11):
        tasks[number].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert not place.views() and not list((place.run_root / "views").iterdir())


async def test_a_stopped_containers_mounts_are_shown(place: Place) -> None:
    write(place.lower / "data/hidden")
    (place.lower / "link").symlink_to("data")
    place.storage.create_volume(volume())
    bound = write(place.directory / "bound", "bound")
    plans = [
        await place.storage.plan_mount(request(no_copy=True), "/link", fill_from=None),
        await place.storage.plan_mount(
            request(MountKind.BIND, source=str(bound), read_only=True), "/a/b", fill_from=None
        ),
        await place.storage.plan_mount(request(MountKind.TMPFS), "/tmp", fill_from=None),
    ]
    async with place.storage.mounted(place.rootfs, running_root=None) as root:
        async with place.storage.mounted(place.rootfs, running_root=None, planned=plans) as again:
            assert again == root and listed(root / "data") == []
            (root / "data/new").write_text("n")
            with pytest.raises(OSError, match="Read-only"):
                (root / "a/b").write_text("x")
        exported = b"".join([chunk async for chunk in place.storage.export_tar(root)])
    assert not place.views()
    assert listed(place.storage.volume("vol").path) == ["new"] and bound.read_text() == "bound"
    assert b"data/new" not in exported and b"data/" in exported
    assert listed(place.upper) == ["a"]


async def test_a_mount_that_does_not_fit(place: Place) -> None:
    write(place.lower / "file")
    place.storage.create_volume(volume())
    planned = await place.storage.plan_mount(request(no_copy=True), "/file", fill_from=None)
    with pytest.raises(InvalidRequest, match="no directory"):
        async with place.storage.mounted(place.rootfs, running_root=None, planned=[planned]):
            pass
    assert not place.views()


async def test_a_killed_daemons_views_are_cleared(place: Place) -> None:
    place.storage.mounted(place.rootfs, running_root=None)
    context = place.storage.mounted(place.rootfs, running_root=None)
    await context.__aenter__()
    assert place.views()
    other = type(place.storage)(
        data_root=place.data_root,
        run_root=place.run_root,
        volumes=place.database.documents("volumes", VolumeInfo),
    )
    assert other.known_containers() == (ID,)
    assert not place.views()


async def test_the_containers_user_owns_the_prefix(place: Place) -> None:
    write(place.lower / "silo/prefix/user.reg", "administrator")
    write(place.lower / "silo/prefix/drive_c/x")
    write(place.lower / "silo/users/U/user.reg", "user")
    owner = ScratchOwner(
        path="/silo/prefix", uid=1000, gid=1000, copies=(("/silo/users/U/user.reg", "/silo/prefix/user.reg"),)
    )
    await place.storage.own_scratch(place.rootfs, ScratchOwner(path="/silo/prefix", uid=0, gid=0))
    assert listed(place.upper) == []
    await place.storage.own_scratch(place.rootfs, owner)
    prefix = place.upper / "silo/prefix"
    assert prefix.stat().st_uid == 1000 and listed(prefix) == ["user.reg"]
    assert (prefix / "user.reg").read_text() == "user" and (prefix / "user.reg").stat().st_uid == 1000
    (prefix / "user.reg").write_text("changed")
    await place.storage.own_scratch(place.rootfs, owner)
    assert (prefix / "user.reg").read_text() == "changed"
    with pytest.raises(InvalidRequest, match="no directory /none"):
        await place.storage.own_scratch(place.rootfs, ScratchOwner(path="/none", uid=0, gid=0))
    assert not place.views()


async def test_each_user_finds_what_was_theirs(place: Place) -> None:
    write(place.lower / "silo/prefix/user.reg", "administrator")
    write(place.lower / "silo/users/U/user.reg", "user")
    own = "/silo/prefix/user.reg"
    aside = {0: "/silo/users/A/user.reg", 1000: "/silo/users/U/user.reg"}

    def of(uid: int) -> ScratchOwner:
        keeps = tuple((other, own, path) for other, path in aside.items() if other != uid)
        return ScratchOwner(path="/silo/prefix", uid=uid, gid=uid, keeps=keeps, copies=((aside[uid], own),))

    file = place.upper / own[1:]
    for uid, before, after in (
        (1000, "user", "user 1"),
        (0, "administrator", "administrator 1"),
        (1000, "user 1", "user 2"),
        (0, "administrator 1", "administrator 2"),
    ):
        await place.storage.own_scratch(place.rootfs, of(uid))
        assert (file.read_text(), file.stat().st_uid) == (before, uid)
        file.write_text(after)
    # the daemon was killed between the copies and the directory
    await place.storage.own_scratch(place.rootfs, of(1000))
    os.chown(file.parent, 0, 0)
    await place.storage.own_scratch(place.rootfs, of(1000))
    assert (place.upper / "silo/users/A/user.reg").read_text() == "administrator 2"
    assert file.read_text() == "user 2"


async def test_scratches(place: Place) -> None:
    with pytest.raises(Conflict):
        place.storage.create_scratch(ID)
    assert place.storage.container_directory(ID).stat().st_mode & 0o077 == 0
    assert place.upper.stat().st_mode & 0o777 == 0o755
    with pytest.raises(NotFound):
        place.storage.container_directory("../" + "a" * 61)
    write(place.upper / "big", "x" * 100_000)
    assert 100_000 <= place.storage.scratch_size_bytes(ID) < 200_000
    await place.storage.remove_scratch(ID)
    await place.storage.remove_scratch(ID)
    assert place.storage.known_containers() == ()
    assert place.storage.scratch_size_bytes(ID) == 0


async def test_an_image_without_layers_has_a_root(place: Place) -> None:
    import msgspec

    bare = place.storage.rootfs(
        ID, msgspec.structs.replace(place.image, layer_paths=()), read_only=False, volatile=False
    )
    async with place.storage.mounted(bare, running_root=None) as root:
        assert not list(root.iterdir())


async def test_an_empty_volume_is_filled_once(place: Place) -> None:
    write(place.lower / "srv/data/file", "from image", mode=0o640, owner=(7, 8))
    write(place.lower / "srv/data/sub/deep", "deep")
    os.link(place.lower / "srv/data/file", place.lower / "srv/data/linked")
    (place.lower / "srv/data/link").symlink_to("file")
    os.mkfifo(place.lower / "srv/data/fifo")
    os.truncate(write(place.lower / "srv/data/sparse", ""), 1 << 30)
    os.chown(place.lower / "srv/data", 33, 34)
    (place.lower / "srv/data").chmod(0o750)
    os.utime(place.lower / "srv/data/sub", ns=(1, 2_000_000_000))
    (place.higher / "data").symlink_to("srv/data")
    place.storage.create_volume(volume())
    planned = await place.storage.plan_mount(request(), "/data", fill_from=place.rootfs)
    assert planned.source is not None and planned.volume_name == "vol" and not planned.read_only
    data = planned.source
    assert listed(data) == ["fifo", "file", "link", "linked", "sparse", "sub"]
    status = (data / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777, status.st_nlink) == (7, 8, 0o640, 2)
    assert str((data / "link").readlink()) == "file"
    assert (data / "sub").stat().st_mtime_ns == 2_000_000_000
    assert (data / "sparse").stat().st_size == 1 << 30 and (data / "sparse").stat().st_blocks < 100
    assert (data.stat().st_uid, data.stat().st_gid, data.stat().st_mode & 0o777) == (33, 34, 0o750)
    for name in ("file", "linked", "link", "fifo", "sparse"):
        (data / name).unlink()
    again = await place.storage.plan_mount(request(), "/data", fill_from=place.rootfs)
    assert again.source is not None and listed(again.source) == ["sub"]
    assert not place.views() and listed(data.parent) == ["_data"]


async def test_filling_goes_on_after_a_crash(place: Place) -> None:
    write(place.lower / "data/a", "a")
    write(place.lower / "data/b", "b")
    made = place.storage.create_volume(volume())
    write(made.path.parent / ".ready/b", "b")
    write(made.path / "a", "a")
    write(made.path.parent / ".fill/junk")
    planned = await place.storage.plan_mount(request(), "/data", fill_from=place.rootfs)
    assert planned.source is not None and listed(planned.source) == ["a", "b"]
    assert not (made.path.parent / ".ready").exists()


async def test_what_does_not_fill(place: Place) -> None:
    write(place.lower / "data/a")
    write(place.lower / "file")
    place.storage.create_volume(volume())
    for words, target in (({"no_copy": True}, "/data"), ({}, "/missing"), ({}, "/file"), ({}, "/file/x")):
        planned = await place.storage.plan_mount(request(**words), target, fill_from=place.rootfs)
        assert planned.source is not None and listed(planned.source) == []


async def test_windows_targets_find_their_case(place: Place) -> None:
    write(place.lower / f"{DRIVE_C}/windows/temp/x".lstrip("/"), "x")
    write(place.higher / f"{DRIVE_C}/Program Files/app/y".lstrip("/"), "y")
    place.storage.create_volume(volume())
    for typed, true in (
        ("WINDOWS/Temp", "windows/temp"),
        ("program files/App/new/Dir", "Program Files/app/new/Dir"),
        ("Data", "Data"),
    ):
        planned = await place.storage.plan_mount(request(), f"{DRIVE_C}/{typed}", fill_from=place.rootfs)
        assert planned.target == f"{DRIVE_C}/{true}"
    assert listed(place.storage.volume("vol").path) == ["x"]
    assert not place.views()


async def test_bind_sources(place: Place) -> None:
    plan = place.storage.plan_mount
    missing = place.directory / "made" / "deep"
    with pytest.raises(InvalidRequest, match=f"bind source path does not exist: {missing}"):
        await plan(request(MountKind.BIND, source=str(missing)), "/data", fill_from=place.rootfs)
    planned = await plan(
        request(MountKind.BIND, source=str(missing), create_source=True, read_only=True, propagation="rslave"),
        "/data",
        fill_from=place.rootfs,
    )
    assert missing.is_dir() and planned.source == missing and planned.read_only and planned.options == ("rslave",)
    file = write(place.directory / "single")
    assert (await plan(request(MountKind.BIND, source=str(file)), "/data", fill_from=None)).source == file
    for bad in ({"source": "relative"}, {"source": "/a\0b"}, {"source": str(file), "propagation": "odd"}):
        with pytest.raises(InvalidRequest):
            await plan(request(MountKind.BIND, **bad), "/data", fill_from=None)
    with pytest.raises(HostError):
        await plan(request(MountKind.BIND, source=f"{file}/x", create_source=True), "/data", fill_from=None)
    with pytest.raises(Unsupported):
        await plan(request(MountKind.NAMED_PIPE), "/data", fill_from=None)
    with pytest.raises(Unsupported, match="subpath"):
        place.storage.create_volume(volume())
        await plan(request(subpath="x"), "/data", fill_from=None)


async def test_volumes(place: Place) -> None:
    storage = place.storage
    made = storage.create_volume(volume(labels={"a": "b"}))
    assert made.path == place.data_root / "volumes/vol/_data" and made.path.is_dir()
    assert storage.create_volume(volume()) == made == storage.volume("vol")
    assert storage.volumes() == (made,)
    write(made.path / "f", "x" * 50_000)
    assert 50_000 <= storage.volume_size_bytes("vol") < 80_000
    with pytest.raises(Conflict):
        storage.create_volume(volume(options={"type": "tmpfs"}))
    storage.remove_volume("vol")
    assert not made.path.parent.exists() and storage.volumes() == ()
    for call in (storage.volume, storage.remove_volume, storage.volume_size_bytes):
        with pytest.raises(NotFound):
            call("vol")
    for bad in (
        volume("../x"),
        volume("x" * 300),
        volume(driver="nfs"),
        volume(options={"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}),
        volume(options={"colour": "red"}),
        volume(options={"type": "none", "o": "bind"}),
        volume(options={"type": "none", "o": "bind,odd", "device": "/srv"}),
        volume(options={"type": "tmpfs", "o": "size=many"}),
    ):
        with pytest.raises(InvalidRequest):
            storage.create_volume(bad)
    assert storage.volumes() == ()


async def test_a_removed_volumes_files_do_not_come_back(place: Place) -> None:
    made = place.storage.create_volume(volume())
    write(made.path / "secret")
    place.storage.remove_volume("vol")
    assert listed(place.storage.create_volume(volume()).path) == []


async def test_bind_and_tmpfs_volumes(place: Place) -> None:
    storage = place.storage
    device = place.directory / "device"
    storage.create_volume(volume("bound", options={"type": "none", "o": "bind,ro", "device": str(device)}))
    with pytest.raises(HostError, match="does not exist"):
        await storage.plan_mount(request(source="bound"), "/data", fill_from=None)
    write(device / "kept")
    planned = await storage.plan_mount(request(source="bound"), "/data", fill_from=None)
    assert planned.source == device and planned.read_only
    storage.remove_volume("bound")
    assert (device / "kept").exists()

    write(place.lower / "data/a", "a")
    storage.create_volume(volume("ram", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=9"}))
    for _ in range(2):
        planned = await storage.plan_mount(request(source="ram"), "/data", fill_from=place.rootfs)
    assert planned.source is not None and planned.source.is_mount() and listed(planned.source) == ["a"]
    storage.remove_volume("ram")
    assert not planned.source.exists()
