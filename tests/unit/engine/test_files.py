"""diff, cp, export and commit: whose files they read, by isolation level."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from silo.engine.root_files import open_storage_files
from silo.errors import AccessDenied, NotFound
from silo.model.image import Image, ImageConfig
from silo.model.mount import MountKind, MountRequest
from silo.model.platform import Isolation, Platform
from silo.model.runtime import ScratchOwner
from tests.unit.engine.fakes import Bench
from tests.unit.engine.test_lifecycle import create, scenario

VOLUME = MountRequest(kind=MountKind.VOLUME, target="/data", source="v")
TMPFS = MountRequest(kind=MountKind.TMPFS, target="/tmp")


async def one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def test_a_runtime_that_keeps_the_files_is_asked_for_all_of_them() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, isolation=Isolation.HYPERV, mounts=(VOLUME, TMPFS))
        files, told = bench.engine.files, bench.vm_runtime.files
        assert [change.path for change in await files.changes(container)] == ["/new"]
        assert [chunk async for chunk in files.export(container)] == [b"export"]
        assert told == [("open",), ("close",)] * 2
        told.clear()
        assert await files.stat_archive(container, "/data/x") == {"name": "/data/x"}
        stat, chunks = await files.read_archive(container, "/data/x")
        assert stat == {"name": "/data/x"} and told[-1] == ("read", "/data/x")
        assert [chunk async for chunk in chunks] == [b"read"] and told[-1] == ("close",)
        await files.write_archive(container, "/", one(b"tar"))
        assert told.count(("open", "/data")) == 3 and ("write", "/", "tar") in told
        with pytest.raises(NotFound):
            await files.read_archive(container, "/none")

    scenario(body)


def test_a_running_container_shows_its_mounts_itself() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, isolation=Isolation.HYPERV, mounts=(VOLUME,))
        await bench.engine.containers.start(container)
        await bench.engine.files.stat_archive(container, "/data")
        assert bench.vm_runtime.files == [("open",), ("stat", "/data"), ("close",)]

    scenario(body)


def test_nothing_is_copied_into_a_read_only_root() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, isolation=Isolation.HYPERV, read_only_root=True)
        with pytest.raises(AccessDenied, match="read-only"):
            await bench.engine.files.write_archive(container, "/", one(b""))

    scenario(body)


def test_the_committed_layer_is_the_runtimes() -> None:
    committed: list[bytes] = []

    async def commit(base: Image, layer: AsyncIterator[bytes], **_options: Any) -> Image:
        committed.extend([chunk async for chunk in layer])
        return base

    async def body(bench: Bench) -> None:
        bench.images.commit = commit  # type: ignore[attr-defined]
        container = await create(bench, isolation=Isolation.HYPERV)
        await bench.engine.files.commit(container, repo="r")
        assert committed == [b"layer"] and bench.vm_runtime.files[-1] == ("close",)

    scenario(body)


@pytest.mark.parametrize("isolation", Isolation)
def test_who_gives_the_scratch_to_its_owner(isolation: Isolation) -> None:
    owner = ScratchOwner(path="/silo/prefix", uid=1, gid=1)

    async def body(bench: Bench) -> None:
        bench.personality.owner = owner
        container = await create(bench, isolation=isolation)
        await bench.engine.containers.start(container)
        if isolation is Isolation.HYPERV:
            assert bench.vm_runtime.plans[container].scratch_owner == owner and not bench.storage.owned
        else:
            assert bench.runtime.plans[container].scratch_owner is None and bench.storage.owned == [owner]

    scenario(body)


class LookedAt:
    """A Storage that tells when its root is in view."""

    def __init__(self) -> None:
        self.views: list[str] = []

    def rootfs(self, *_args: Any, **_options: Any) -> None: ...

    @asynccontextmanager
    async def mounted(self, *_args: Any, **_options: Any) -> AsyncIterator[Path]:
        self.views.append("opened")
        yield Path("/view")
        self.views.append("closed")

    async def changes(self, container_id: str, image: Image) -> tuple[()]:
        return ()

    async def layer_tar(self, container_id: str, image: Image) -> AsyncIterator[bytes]:
        yield container_id.encode()

    async def export_tar(self, root: Path) -> AsyncIterator[bytes]:
        yield str(root).encode()

    async def stat_archive(self, root: Path, path: str) -> dict[str, object]:
        return {"name": f"{root}{path}"}


def test_files_on_this_host_are_mounted_only_for_who_needs_the_root() -> None:
    async def body(_bench: Bench) -> None:
        storage: Any = LookedAt()
        image = Image(id="i", platform=Platform(os="linux", architecture="amd64"), config=ImageConfig())
        async with open_storage_files(storage, "c", image, running_root=None) as files:
            assert [chunk async for chunk in files.layer()] == [b"c"] and storage.views == []
            assert await files.stat("/x") == {"name": "/view/x"}
            assert [chunk async for chunk in files.export()] == [b"/view"] and storage.views == ["opened"]
        assert storage.views == ["opened", "closed"]

    scenario(body)
