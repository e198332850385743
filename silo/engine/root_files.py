"""The files of a container which lie on this host: the port RootFiles over the port Storage.

Nothing is mounted before something asks for the root: `diff` and `commit` read the scratch as it lies on the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from silo.engine.ports import RootFiles, Storage
from silo.model.image import Image
from silo.model.mount import PlannedMount
from silo.model.runtime import Rootfs


@asynccontextmanager
async def open_storage_files(
    storage: Storage,
    container_id: str,
    image: Image,
    *,
    running_root: Path | None,
    planned: Sequence[PlannedMount] = (),
) -> AsyncIterator[RootFiles]:
    """`running_root`: where a running container's root is seen; without it scratch and `planned` are mounted when needed."""
    rootfs = storage.rootfs(container_id, image, read_only=False, volatile=False)
    async with AsyncExitStack() as mounts:
        yield _StorageFiles(storage, container_id, image, rootfs, running_root, planned, mounts)


class _StorageFiles:
    def __init__(
        self,
        storage: Storage,
        container_id: str,
        image: Image,
        rootfs: Rootfs,
        running_root: Path | None,
        planned: Sequence[PlannedMount],
        mounts: AsyncExitStack,
    ) -> None:
        self._storage = storage
        self._container_id = container_id
        self._image = image
        self._rootfs = rootfs
        self._running_root = running_root
        self._planned = planned
        self._mounts = mounts
        self._shown: Path | None = None

    async def stat(self, path: str) -> dict[str, object]:
        return await self._storage.stat_archive(await self._root(), path)

    async def read(self, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        return await self._storage.read_archive(await self._root(), path)

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        await self._storage.write_archive(
            await self._root(),
            path,
            chunks,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
        )

    async def export(self) -> AsyncIterator[bytes]:
        async with aclosing(cast(Any, self._storage.export_tar(await self._root()))) as chunks:
            async for chunk in chunks:
                yield chunk

    def layer(self) -> AsyncIterator[bytes]:
        return self._storage.layer_tar(self._container_id, self._image)

    async def _root(self) -> Path:
        if self._shown is None:
            view = self._storage.mounted(self._rootfs, running_root=self._running_root, planned=self._planned)
            self._shown = await self._mounts.enter_async_context(view)
        return self._shown
