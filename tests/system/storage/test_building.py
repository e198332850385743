"""Files of builds on a real overlay: what COPY and ADD leave, whom it belongs to, and that nothing of a build stays."""

from __future__ import annotations

import asyncio
import gzip
import io
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.model.build import CopyTarget
from silo.model.image import Image
from silo.model.windows_paths import DRIVE_C
from silo.storage.building.tree import SourceTree
from tests.system.storage.places import Place, listed, write

pytestmark = pytest.mark.system


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def tar(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def copied(place: Place, tree: Path, pattern: str, target: CopyTarget) -> dict[str, tarfile.TarInfo]:
    """The members of the layer that copying makes."""
    source = SourceTree(tree)
    async with place.storage.builds.change(place.image) as change:
        for item in await source.find(pattern, archives=True):
            await change.copy(source, item, target)
        data = b"".join([piece async for piece in change.layer()])
    assert not place.views()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


async def test_an_image_may_hold_a_layer_twice(place: Place) -> None:
    write(place.lower / "a", "lower")
    write(place.higher / "b", "higher")
    image = Image(
        id="sha256:2",
        platform=place.image.platform,
        config=place.image.config,
        layer_paths=(place.lower, place.higher, place.lower),
    )
    rootfs = place.storage.rootfs("a" * 64, image, read_only=False, volatile=False)
    assert rootfs.layers == (place.lower, place.higher)
    async with place.storage.mounted(rootfs, running_root=None) as root:
        assert listed(root) == ["a", "b"]


async def test_owners_modes_and_parents(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "src/run.sh", mode=0o755, owner=(9, 9))
    (tree / "src/link").symlink_to("run.sh")
    write(place.lower / "srv/there", owner=(3, 3))
    (place.lower / "srv").chmod(0o700)
    made = await copied(place, tree, "src", CopyTarget(path="/srv/new/app", into=False, owner=(5, 6)))
    assert {name.rstrip("/") for name in made} == {
        "srv",
        "srv/new",
        "srv/new/app",
        "srv/new/app/run.sh",
        "srv/new/app/link",
    }
    assert made["srv"].mode == 0o700 and made["srv"].uid == 0, "what exists keeps owner and mode"
    assert {(made[name].uid, made[name].gid) for name in made if name.startswith("srv/new")} == {(5, 6)}
    assert made["srv/new/app/run.sh"].mode == 0o755 and made["srv/new/app/link"].linkname == "run.sh"
    kept = await copied(place, tree, "src/run.sh", CopyTarget(path="/x", into=True, owner=None))
    assert (kept["x/run.sh"].uid, kept["x"].uid) == (9, 0)

    def group_only(mode: int, *, is_directory: bool) -> int:
        return 0o070 if not is_directory else mode

    assert (await copied(place, tree, "src/run.sh", CopyTarget(path="/y", into=False, mode=group_only)))[
        "y"
    ].mode == 0o070


async def test_links_of_the_image_are_followed_and_directories_kept(place: Place, tmp_path: Path) -> None:
    (place.lower / "usr/lib").mkdir(parents=True)
    (place.lower / "lib").symlink_to("usr/lib")
    write(tmp_path / "tree/lib/mine")
    assert "usr/lib/mine" in await copied(place, tmp_path / "tree", ".", CopyTarget(path="/", into=True))
    write(place.lower / "file")
    for target, pattern in (("/file/x", "lib/mine"), ("/usr", "lib/mine")):
        with pytest.raises(InvalidRequest):
            await copied(place, tmp_path / "tree", pattern, CopyTarget(path=target, into=False))


async def test_a_link_out_of_the_image_leads_back_into_it(place: Place, tmp_path: Path) -> None:
    (place.lower / "out").symlink_to("../../../../../../tmp")
    (place.lower / "tmp").mkdir()
    write(tmp_path / "tree/file")
    made = await copied(place, tmp_path / "tree", "file", CopyTarget(path="/out/deep/", into=True))
    assert "tmp/deep/file" in made


async def test_added_archives(place: Place, tmp_path: Path) -> None:
    members = (
        ("dir/file", b"1", {"uid": 7, "gid": 8, "mode": 0o640}),
        ("dev/null", b"", {"type": tarfile.CHRTYPE}),
        ("bin", b"", {"type": tarfile.SYMTYPE, "linkname": "usr/bin"}),
    )
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/root.tgz").write_bytes(gzip.compress(tar(*members)))
    made = await copied(place, tmp_path / "tree", "root.tgz", CopyTarget(path="/opt/x", into=True, owner=None))
    assert (made["opt/x/dir/file"].uid, made["opt/x/dir/file"].mode) == (7, 0o640)
    assert "opt/x/dev/null" not in made and made["opt/x/bin"].linkname == "usr/bin"
    made = await copied(place, tmp_path / "tree", "root.tgz", CopyTarget(path="/opt/x", into=True, owner=(1, 1)))
    assert {made[name].uid for name in ("opt/x", "opt/x/dir/file", "opt/x/bin")} == {1}
    (tmp_path / "tree/evil.tar").write_bytes(tar(("../../evil", b"x", {})))
    with pytest.raises(InvalidRequest):
        await copied(place, tmp_path / "tree", "evil.tar", CopyTarget(path="/opt", into=True))


async def test_names_that_would_hide_files(place: Place, tmp_path: Path) -> None:
    write(tmp_path / "tree/.wh.etc")
    with pytest.raises(InvalidRequest, match="hide"):
        await copied(place, tmp_path / "tree", ".", CopyTarget(path="/", into=True))


async def test_the_drive_has_no_case(place: Place, tmp_path: Path) -> None:
    write(place.lower / DRIVE_C[1:] / "Program Files/Tool/old")
    write(tmp_path / "tree/new")
    target = CopyTarget(path=f"{DRIVE_C}/PROGRAM FILES/tool/", into=True)
    assert f"{DRIVE_C[1:]}/Program Files/Tool/new" in await copied(place, tmp_path / "tree", "new", target)


async def test_directories_and_owners_by_name(place: Place) -> None:
    write(place.lower / "etc/passwd", "app:x:1000:1001::/:/bin/sh\n")
    write(place.lower / "etc/group", "staff:x:50:\n")
    async with place.storage.builds.change(place.image) as change:
        async with change.open():
            assert await change.find_owner("app:staff") == (1000, 50)
            assert await change.make_directory("/home/app", (1000, 1001))
            assert not await change.make_directory("/home/app", (0, 0))
            assert await change.is_directory("/etc") and not await change.is_directory("/etc/passwd")
    (place.lower / "etc/passwd").unlink()
    (place.lower / "etc/passwd").symlink_to("/proc/1/environ")
    async with place.storage.builds.change(place.image) as change:
        with pytest.raises(InvalidRequest):
            await change.find_owner("app")


async def test_nothing_of_a_build_stays(place: Place) -> None:
    builds = place.storage.builds
    data = tar(("a", b"1", {"uid": 5, "mode": 0o600}))
    async with builds.receive(pieces(gzip.compress(data))) as tree:
        status = (tree.directory / "a").stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        (item,) = await tree.find("a", archives=False)
        async with builds.take(tree, item) as taken, builds.write({"dir/b": b"2"}, mode=0o755) as written:
            assert listed(taken.directory) == ["a"] and (written.directory / "dir/b").stat().st_mode & 0o777 == 0o755
        async with builds.look(place.image) as shown:
            assert shown.directory.is_dir()
        assert len(listed(place.data_root / "builds")) == 1
    assert listed(place.data_root / "builds") == [] and not place.views()
    with pytest.raises(InvalidRequest):
        async with builds.receive(pieces(b"no archive at all" * 100)):
            pass
    assert listed(place.data_root / "builds") == []


async def test_what_a_killed_daemon_left_goes_at_the_next_start(place: Place) -> None:
    write(place.data_root / "builds/left/file")
    place.storage.known_containers()
    assert listed(place.data_root / "builds") == []


async def test_a_cancelled_copy_leaves_no_mount(place: Place, tmp_path: Path) -> None:
    for number in range(3000):
        write(tmp_path / f"tree/{number}")
    task = asyncio.ensure_future(copied(place, tmp_path / "tree", ".", CopyTarget(path="/x", into=True)))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, InvalidRequest)):
        await task
    assert not place.views()
