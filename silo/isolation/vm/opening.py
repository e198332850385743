"""Opening a container's files: in its own machine while it runs, else in a machine that holds its disk for as long as it is asked.

A disk that a guest has written to is read by a guest only. Such a machine stays for a moment after it was used, because who asks
once mostly asks again (`docker cp` asks twice); a container that starts meanwhile takes its disk away from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from silo.engine.ports import RootFiles
from silo.errors import SiloError, Unavailable
from silo.isolation.vm.clones import Clone, Clones
from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.folders import attach_folders
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.image_files import ImageFiles
from silo.isolation.vm.root_files import VmFiles
from silo.isolation.vm.session import FOLDERS, IMAGE, ROOT, SCRATCH, folders_mount, root_mounts
from silo.isolation.vm.shapes import Shape, host_limits
from silo.model.container import Resources
from silo.model.finishing import to_the_end
from silo.model.mount import PlannedMount
from silo.model.runtime import Rootfs
from silo.model.vm_image import SCRATCH_DISK

log = logging.getLogger(__name__)

_IDLE_S = 2.0


@dataclass(slots=True, eq=False)
class _Reader:
    """A machine that holds a stopped container's disk."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    clone: Clone | None = None
    targets: tuple[str, ...] = ()
    users: int = 0
    closing: asyncio.Task[None] | None = None


class FileOpener:
    """`shape` answers what such machines are like."""

    def __init__(
        self,
        clones: Clones,
        images: ImageFiles,
        shape: Callable[[], Awaitable[Shape]],
    ) -> None:
        self._clones = clones
        self._images = images
        self._shape = shape
        self._readers: dict[str, _Reader] = {}

    @contextlib.asynccontextmanager
    async def open(self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]) -> AsyncIterator[VmFiles]:
        """Of a container that does not run. Raises what starting a machine raises, InvalidRequest (a mount's source is gone)."""
        reader = self._readers.setdefault(container_id, _Reader())
        reader.users += 1
        if reader.closing is not None:
            reader.closing.cancel()
        try:
            async with reader.lock:
                wanted = tuple(mount.target for mount in planned if mount.source is not None)
                if reader.clone is not None and (not _answers(reader.clone) or (wanted and wanted != reader.targets)):
                    await to_the_end(self._end(reader))
                if reader.clone is None:
                    await self._begin(reader, rootfs, planned)
                    reader.targets = wanted
                assert reader.clone is not None
                clone = reader.clone
            yield VmFiles(clone.session.guest, {"root": ROOT})
        finally:
            reader.users -= 1
            if not reader.users:
                reader.closing = asyncio.create_task(self._close_later(container_id, reader), name="close-disk")

    async def _begin(self, reader: _Reader, rootfs: Rootfs, planned: Sequence[PlannedMount]) -> None:
        shape = await self._shape()
        image = await self._images.find(rootfs.layers) or await self._images.ensure(rootfs.layers, map_it=True)
        scratch = rootfs.scratch / SCRATCH_DISK
        limits = host_limits(Resources(), shape.memory_bytes)
        clone = await self._clones.start(shape, image, scratch, limits, size_bytes=rootfs.size_bytes)
        try:
            await clone.session.reseed("files", secrets.token_hex(16))
            await clone.session.mount(root_mounts(mapped=image.mapped, volatile=False))
            served = [mount for mount in planned if mount.source is not None]
            if served:
                await asyncio.to_thread(attach_folders, clone.vm.pid, served, clone.range.namespace)
                await clone.session.mount([folders_mount()])
                await clone.session.mount([_bind(number, mount) for number, mount in enumerate(served)])
        except BaseException:
            await to_the_end(self._clones.end(clone))
            raise
        reader.clone = clone

    async def _close_later(self, container_id: str, reader: _Reader) -> None:
        await asyncio.sleep(_IDLE_S)
        await self._close(container_id, reader)

    async def _close(self, container_id: str, reader: _Reader) -> None:
        async with reader.lock:
            if reader.users:
                return
            # whoever comes meanwhile cancels this, and must find the lock held until the machine is gone: a disk is one machine's
            await to_the_end(self._end(reader))
            if self._readers.get(container_id) is reader:
                del self._readers[container_id]

    async def _end(self, reader: _Reader) -> None:
        """What was written is on the disk before the machine goes."""
        clone, reader.clone = reader.clone, None
        if clone is None:
            return
        with contextlib.suppress(SiloError):
            await clone.session.unmount(
                [*(f"{ROOT}{target}" for target in reversed(reader.targets)), ROOT, SCRATCH, IMAGE]
            )
        if reader.targets:
            with contextlib.suppress(SiloError):
                await clone.session.unmount([FOLDERS])
        await self._clones.end(clone)

    async def give_way(self, container_id: str) -> None:
        """Nobody else holds the disk afterwards. Raises Unavailable while somebody is reading."""
        reader = self._readers.get(container_id)
        if reader is None:
            return
        if reader.users:
            raise Unavailable(
                f"files of container {container_id[:12]} are being copied", hint="start it when that is done"
            )
        if reader.closing is not None:
            reader.closing.cancel()
        await self._close(container_id, reader)

    async def close(self) -> None:
        for container_id, reader in list(self._readers.items()):
            reader.users = 0
            if reader.closing is not None:
                reader.closing.cancel()
            await self._close(container_id, reader)


def _answers(clone: Clone) -> bool:
    return clone.vm.alive and clone.session.client.is_connected


def _bind(number: int, mount: PlannedMount) -> dict[str, object]:
    options = ["rec", *(["ro"] if mount.read_only else [])]
    is_directory = mount.source is not None and mount.source.is_dir()
    return {
        "type": "bind",
        "source": f"{FOLDERS}/{number}",
        "target": mount.target,
        "beneath": ROOT,
        "options": options,
        "mkdir": is_directory,
        "mkfile": not is_directory,
    }


@contextlib.asynccontextmanager
async def open_running(
    container: VmContainer, resume: Callable[[VmContainer], Awaitable[None]]
) -> AsyncIterator[RootFiles]:
    """A paused one's machine runs for as long as somebody looks; its programs do not."""
    async with container.looking:
        container.lookers += 1
        if container.record.paused and container.lookers == 1:
            await resume(container)
    try:
        yield VmFiles(container.clone.session.guest, {"task": MAIN})
    finally:
        container.lookers -= 1
        if container.record.paused and not container.lookers and container.running:
            with contextlib.suppress(SiloError):
                await container.clone.vm.monitor.execute("stop")
