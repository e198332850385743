"""The files of containers: diff, cp, export, commit; running or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from silo.engine.disks import check_running_disk, refuse_inside
from silo.engine.instructions import apply_instructions
from silo.engine.lifecycle import Lifecycle
from silo.engine.parts import Parts
from silo.engine.planning import find_rootfs
from silo.engine.ports import FileChange, RootFiles
from silo.engine.root_files import open_storage_files
from silo.engine.roster import Live, Roster
from silo.engine.single_files import read_only_file
from silo.engine.states import ALIVE
from silo.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from silo.model.clock import now
from silo.model.container import ContainerConfig, Status
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import Rootfs


class ContainerFiles:
    """`docker diff`, `cp`, `export`, `commit`."""

    def __init__(self, parts: Parts, roster: Roster, lifecycle: Lifecycle) -> None:
        self._parts = parts
        self._roster = roster
        self._lifecycle = lifecycle

    async def changes(self, reference: str) -> tuple[FileChange, ...]:
        live = self._resolve(reference, "diff")
        await self._save(live)
        storage, image = self._parts.storage, self._parts.image_of(live.record)
        if not self._parts.runtime(live.record.isolation).keeps_files:
            return await storage.changes(live.id, image)
        async with self._open(live) as files, aclosing(cast(Any, files.layer())) as chunks:
            return await storage.layer_changes(image, chunks)

    async def export(self, reference: str) -> AsyncIterator[bytes]:
        live = self._resolve(reference, "export")
        await self._save(live)
        async with self._open(live) as files, aclosing(cast(Any, files.export())) as chunks:
            async for chunk in chunks:
                yield chunk
        self._lifecycle.publish(live, "export")

    async def contents(self, reference: str, paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        """Whole files by their paths in the container's root, as they are now; what is missing or no file is left out. Raises
        InvalidRequest for one that is larger than allowed."""
        live = self._resolve(reference, "reading files")
        await self._save(live)
        found = {}
        async with self._open(live) as files:
            for path in paths:
                try:
                    _, chunks = await files.read(path)
                except NotFound:
                    continue
                content = await read_only_file(chunks, path, limit_bytes=limit_bytes)
                if content is not None:
                    found[path] = content
        return found

    async def stat_archive(self, reference: str, path: str) -> dict[str, object]:
        live, inner = self._archive_path(reference, path)
        async with await self._open_with_mounts(live) as files:
            return await files.stat(inner)

    async def read_archive(self, reference: str, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        """The path's stat, and a tar that keeps the root in view until it is read to its end or closed."""
        live, inner = self._archive_path(reference, path)
        view = await self._open_with_mounts(live)
        files = await view.__aenter__()
        try:
            stat, chunks = await files.read(inner)
        except BaseException:
            await view.__aexit__(None, None, None)
            raise

        async def stream() -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                await view.__aexit__(None, None, None)

        return stat, stream()

    async def write_archive(
        self,
        reference: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        live, inner = self._archive_path(reference, path)
        if live.record.config.read_only_root:
            raise AccessDenied(f"container {live.name} rootfs is marked read-only")
        async with await self._open_with_mounts(live) as files:
            await files.write(
                inner, chunks, no_overwrite_dir_non_dir=no_overwrite_dir_non_dir, copy_uid_gid=copy_uid_gid
            )

    async def commit(
        self,
        reference: str,
        *,
        repo: str = "",
        tag: str = "",
        author: str = "",
        comment: str = "",
        pause: bool = True,
        config_changes: ImageConfig | None = None,
        changes: tuple[str, ...] = (),
    ) -> Image:
        """A new image of a container's files (for Windows also its registry, which lies among them)."""
        live = self._resolve(reference, "commit")
        record = live.record
        base = self._parts.image_of(record)
        config = config_changes or committed_config(record.config, base.config)
        config = apply_instructions(config, changes, windows=record.personality is PersonalityName.WINDOWS)
        await self._save(live)
        pausing = pause and record.state.status is Status.RUNNING
        if pausing:
            await self._lifecycle.pause(live, held=True)
        try:
            async with self._open(live) as files:
                image = await self._parts.images.commit(
                    base,
                    files.layer(),
                    reference=f"{repo}:{tag or 'latest'}" if repo else "",
                    config=config,
                    entry=HistoryEntry(
                        created=now(), created_by=" ".join((record.path, *record.args)), comment=comment, author=author
                    ),
                )
        finally:
            if pausing and not live.gone and live.record.state.status is Status.PAUSED:
                await self._lifecycle.unpause(live)
        self._lifecycle.publish(live, "commit", imageID=image.id)
        return image

    @asynccontextmanager
    async def open_layer(self, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The files of a container that has ended, as an uncompressed OCI layer."""
        async with self._open(self._resolve(reference, "commit")) as files:
            yield files.layer()

    # Within

    def _resolve(self, reference: str, what: str) -> Live:
        live = self._roster.resolve(reference)
        refuse_inside(live.record, what)
        return live

    async def _save(self, live: Live) -> None:
        """A container that ends just now has saved by itself."""
        if live.record.state.status is Status.RUNNING:
            with suppress(Conflict, NotFound):
                await self._parts.runtime(live.record.isolation).save(live.id)

    def _open(self, live: Live) -> AbstractAsyncContextManager[RootFiles]:
        """The container's own files, without what is mounted on them."""
        runtime = self._parts.runtime(live.record.isolation)
        running = live.record.state.status in ALIVE
        return self._view(live, running_root=runtime.root_path(live.id) if running else None, planned=())

    async def _open_with_mounts(self, live: Live) -> AbstractAsyncContextManager[RootFiles]:
        """What `cp` sees: volumes and binds too. A running container's own view has them; a stopped one gets them mounted."""
        state, runtime = live.record.state, self._parts.runtime(live.record.isolation)
        if state.status in ALIVE:
            if runtime.keeps_files:
                return self._view(live, running_root=None, planned=())
            if runtime.root_path(live.id) is not None:
                return self._view(live, running_root=Path(f"/proc/{state.pid}/root"), planned=())
        personality = self._parts.personality(live.record.personality)
        rootfs = self._rootfs(live)
        planned = [
            await self._parts.storage.plan_mount(request, personality.map_path(request.target), fill_from=rootfs)
            for request in live.record.config.mounts
            if request.kind not in (MountKind.TMPFS, MountKind.NAMED_PIPE)
        ]
        return self._view(live, running_root=None, planned=planned)

    def _view(
        self, live: Live, *, running_root: Path | None, planned: Sequence[PlannedMount]
    ) -> AbstractAsyncContextManager[RootFiles]:
        runtime = self._parts.runtime(live.record.isolation)
        if runtime.keeps_files:
            return runtime.open_files(live.id, self._rootfs(live), planned)
        image = self._parts.image_of(live.record)
        return open_storage_files(self._parts.storage, live.id, image, running_root=running_root, planned=planned)

    def _rootfs(self, live: Live) -> Rootfs:
        return find_rootfs(self._parts, live.record, self._parts.image_of(live.record))

    def _archive_path(self, reference: str, path: str) -> tuple[Live, str]:
        live = self._roster.resolve(reference)
        check_running_disk(live.record, "cp")
        if not path:
            raise InvalidRequest("the path in the container is missing")
        personality = self._parts.personality(live.record.personality)
        trailing = ""
        if path.endswith(("/.", "\\.")):
            # `cp dir/.` means what is in it, and the names in the archive say so.
            trailing = "/."
        elif path.endswith(("/", "\\")) and path not in ("/", "\\"):
            trailing = "/"
        return live, personality.map_path(path).rstrip("/") + trailing if trailing else personality.map_path(path)


def committed_config(config: ContainerConfig, base: ImageConfig) -> ImageConfig:
    """What `docker commit` keeps of a container's configuration."""
    names = {pair.partition("=")[0] for pair in config.env}
    env = tuple(pair for pair in base.env if pair.partition("=")[0] not in names)
    return msgspec.structs.replace(
        base,
        user=base.user if config.user is None else config.user,
        env=(*env, *(pair for pair in config.env if "=" in pair)),
        entrypoint=base.entrypoint if config.entrypoint is None else config.entrypoint,
        cmd=config.cmd if config.cmd is not None else base.cmd,
        working_dir=base.working_dir if config.working_dir is None else config.working_dir,
        exposed_ports=tuple(dict.fromkeys((*base.exposed_ports, *config.exposed_ports))),
        volumes=tuple(dict.fromkeys((*base.volumes, *config.volumes))),
        labels=base.labels | config.labels,
        stop_signal=config.stop_signal or base.stop_signal,
        healthcheck=config.healthcheck or base.healthcheck,
    )
