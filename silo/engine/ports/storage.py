"""Scratch layers, volumes, and containers' files on this host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from silo.engine.ports.isolation import FileChange
from silo.model.image import Image
from silo.model.mount import MountRequest, PlannedMount
from silo.model.runtime import (
    Rootfs,
    ScratchOwner,
)


class VolumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    created: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class Storage(Protocol):
    """Scratch layers and volumes. Synchronous methods are fast; others run in threads."""

    def container_directory(self, container_id: str) -> Path: ...
    def create_scratch(self, container_id: str, *, size_bytes: int = 0) -> None:
        """Its directory and a layer for `size_bytes` (0: no limit); raises NoSpace, Conflict, Unsupported (no limit here)."""

    def discard_scratch(self, container_id: str) -> None: ...
    async def remove_scratch(self, container_id: str) -> None: ...
    def known_containers(self) -> tuple[str, ...]:
        """Directories on disk, also of containers the state does not know (the engine removes those)."""

    async def image_files(self, image: Image, paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        """Whole files of an image by their absolute paths; what is missing or no file is left out. Raises InvalidRequest for one
        that is larger."""

    def rootfs(self, container_id: str, image: Image, *, read_only: bool, volatile: bool) -> Rootfs: ...
    def mounted(
        self, rootfs: Rootfs, *, running_root: Path | None, planned: Sequence[PlannedMount] = ()
    ) -> AbstractAsyncContextManager[Path]:
        """A directory that shows the container's root: the running one's, or a private overlay mount for the time, with
        the `planned` mounts on it."""

    async def own_scratch(self, rootfs: Rootfs, owner: ScratchOwner) -> None:
        """Make a user of the container the owner of what a silo needs to own; idempotent."""

    async def changes(self, container_id: str, image: Image) -> tuple[FileChange, ...]: ...
    async def layer_changes(self, image: Image, chunks: AsyncIterator[bytes]) -> tuple[FileChange, ...]:
        """`changes` of a container whose scratch comes as an uncompressed OCI layer, which is untrusted."""

    def layer_tar(self, container_id: str, image: Image) -> AsyncIterator[bytes]:
        """The scratch as an uncompressed OCI layer over the image (whiteouts, opaque directories)."""

    def export_tar(self, root: Path) -> AsyncIterator[bytes]: ...
    async def read_archive(self, root: Path, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        """`docker cp` out: the path's stat (name, size, mode, mtime, linkTarget) and a tar; resolved beneath root."""

    async def stat_archive(self, root: Path, path: str) -> dict[str, object]: ...
    async def write_archive(
        self, root: Path, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        """`docker cp` in: extract a tar beneath root/path; hostile entries raise InvalidRequest and nothing lies outside."""

    def scratch_size_bytes(self, container_id: str) -> int: ...
    def create_volume(self, info: VolumeInfo) -> VolumeInfo:
        """Idempotent for the same driver and options, else Conflict; Unsupported driver raises InvalidRequest."""

    def volume(self, name: str) -> VolumeInfo: ...
    def volumes(self) -> tuple[VolumeInfo, ...]: ...
    def remove_volume(self, name: str) -> None: ...
    def volume_size_bytes(self, name: str) -> int: ...
    async def plan_mount(self, request: MountRequest, target: str, *, fill_from: Rootfs | None) -> PlannedMount:
        """Check and make the source of a mount; an empty named volume is filled from the image's `target`."""
