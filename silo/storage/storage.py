"""LocalStorage: the port Storage on directories of this host.

<data root>/containers/   scratches        <data root>/volumes/   volumes
<data root>/trash/        being deleted    <run root>/views/      mounts while somebody looks
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from io import BufferedReader
from pathlib import Path

from silo.engine.ports import FileChange, VolumeInfo
from silo.host.beneath import Links, Root
from silo.host.whole_files import read_file
from silo.model.image import Image
from silo.model.mount import MountRequest, PlannedMount
from silo.model.persistence import Documents
from silo.model.platform import PersonalityName
from silo.model.runtime import Rootfs, ScratchOwner
from silo.model.vm_image import SCRATCH_DISK
from silo.storage import archives, mounting
from silo.storage.building.files import BuildFiles
from silo.storage.changes import CompareRegistry, find_changes
from silo.storage.extraction import extract_archive
from silo.storage.failures import explained
from silo.storage.layer_sketch import sketch_layer
from silo.storage.owning import give, is_owned
from silo.storage.scratch import Scratches, disk_usage_bytes
from silo.storage.streaming import consume, stream
from silo.storage.tar_tree import write_layer, write_root
from silo.storage.trash import Trash
from silo.storage.views import Setting, Shift, Views
from silo.storage.volumes import Volumes


class LocalStorage:
    """silo.engine.ports.Storage."""

    def __init__(
        self,
        *,
        data_root: Path,
        run_root: Path,
        volumes: Documents[VolumeInfo],
        compare_registry: CompareRegistry | None = None,
    ) -> None:
        """`compare_registry` tells Windows' registry files apart by what they say (silo.windows.registry_text)."""
        self._compare_registry = compare_registry
        self._empty_layer = data_root / "empty"
        self._trash = Trash(data_root / "trash")
        self._scratches = Scratches(data_root / "containers", self._trash)
        self._volumes = Volumes(data_root / "volumes", volumes, self._trash)
        self._views = Views(run_root / "views")
        self.builds = BuildFiles(
            data_root / "builds",
            scratches=self._scratches,
            views=self._views,
            trash=self._trash,
            layers_of=self._layers,
        )

    # Scratches

    def container_directory(self, container_id: str) -> Path:
        return self._scratches.path(container_id)

    def create_scratch(self, container_id: str, *, size_bytes: int = 0) -> None:
        self._scratches.create(container_id, size_bytes=size_bytes)

    def discard_scratch(self, container_id: str) -> None:
        self._scratches.discard(container_id)

    async def remove_scratch(self, container_id: str) -> None:
        """Idempotent; out of sight when this returns, deleted soon after."""
        self._scratches.remove(container_id)

    def known_containers(self) -> tuple[str, ...]:
        """Called once when the daemon has come up: also clears away what a killed one left."""
        self._views.clean()
        self.builds.clean()
        self._trash.empty()
        return self._scratches.ids()

    def scratch_size_bytes(self, container_id: str) -> int:
        directory = self._scratches.path(container_id)
        size = disk_usage_bytes(self._scratches.open(container_id) / "upper")
        with contextlib.suppress(FileNotFoundError):
            size += (directory / SCRATCH_DISK).stat().st_blocks * 512
        return size

    # Views

    def _layers(self, image: Image) -> tuple[Path, ...]:
        # Overlayfs takes no directory twice, and two steps may make the same layer: what the upper one says is all there is to say.
        layers = tuple(dict.fromkeys(reversed(image.layer_paths)))
        if not layers:
            self._empty_layer.mkdir(exist_ok=True)
            layers = (self._empty_layer,)
        return layers

    async def image_files(self, image: Image, paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        return await asyncio.to_thread(self._image_files, image, paths, limit_bytes)

    def _image_files(self, image: Image, paths: Sequence[str], limit_bytes: int) -> dict[str, bytes]:
        with (
            explained("read the image's files"),
            self._views.read_only(self._layers(image)) as shown,
            Root(shown, links=Links.REFUSE) as root,
        ):
            found = ((path, read_file(root, path.lstrip("/"), limit_bytes=limit_bytes)) for path in paths)
            return {path: content for path, content in found if content is not None}

    def rootfs(self, container_id: str, image: Image, *, read_only: bool, volatile: bool) -> Rootfs:
        layers = self._layers(image)
        return Rootfs(layers=layers, scratch=self._scratches.open(container_id), read_only=read_only, volatile=volatile)

    def mounted(
        self, rootfs: Rootfs, *, running_root: Path | None, planned: Sequence[PlannedMount] = ()
    ) -> AbstractAsyncContextManager[Path]:
        """`planned`: volumes and bind mounts to show in a stopped container's root as well."""
        return self._views.shown(rootfs, running_root, planned)

    async def own_scratch(self, rootfs: Rootfs, owner: ScratchOwner) -> None:
        """Before a start: see ScratchOwner. Raises InvalidRequest (the image lacks the directory), NoSpace."""
        if not is_owned(rootfs, owner):
            async with self._views.shown(rootfs, None) as root:
                await asyncio.to_thread(give, root, owner)

    # Files of containers

    async def changes(self, container_id: str, image: Image) -> tuple[FileChange, ...]:
        return await asyncio.to_thread(self._find_changes, container_id, image)

    def _find_changes(self, container_id: str, image: Image) -> tuple[FileChange, ...]:
        return self._compare(self._scratches.open(container_id) / "upper", image)

    def _compare(self, upper: Path, image: Image) -> tuple[FileChange, ...]:
        is_windows = image.platform.os == PersonalityName.WINDOWS
        layers = self._layers(image)
        setting = self._views.setting(upper, layers)
        with setting.lower() as lower:
            return find_changes(upper, lower, setting.whole, windows=is_windows, compare=self._compare_registry)

    async def layer_changes(self, image: Image, chunks: AsyncIterator[bytes]) -> tuple[FileChange, ...]:
        """Raises InvalidRequest, NoSpace, HostError."""
        with self._views.place() as upper:
            await consume(chunks, lambda source: sketch_layer(upper, source))
            return await asyncio.to_thread(self._compare, upper, image)

    def layer_tar(self, container_id: str, image: Image) -> AsyncIterator[bytes]:
        upper = self._scratches.open(container_id) / "upper"
        return stream(_layer(upper, self._views.setting(upper, self._layers(image))))

    def export_tar(self, root: Path) -> AsyncIterator[bytes]:
        return stream(_export(root, self._views.shift_of(root)))

    async def stat_archive(self, root: Path, path: str) -> dict[str, object]:
        return await asyncio.to_thread(archives.stat_archive, root, path)

    async def read_archive(self, root: Path, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        described, pieces = await asyncio.to_thread(archives.read_archive, root, path, self._views.shift_of(root))
        return described, stream(pieces)

    async def write_archive(
        self, root: Path, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        """What came before a failure stays, as after a failing `tar -x`; of the failing file nothing does."""
        shift = self._views.shift_of(root)

        def extract(source: BufferedReader) -> None:
            extract_archive(
                root,
                path,
                source,
                shift,
                no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
                keep_owners=copy_uid_gid,
            )

        await consume(chunks, extract)

    # Volumes and mounts

    def create_volume(self, info: VolumeInfo) -> VolumeInfo:
        return self._volumes.create(info)

    def volume(self, name: str) -> VolumeInfo:
        return self._volumes.get(name)

    def volumes(self) -> tuple[VolumeInfo, ...]:
        return self._volumes.all()

    def remove_volume(self, name: str) -> None:
        self._volumes.remove(name)

    def volume_size_bytes(self, name: str) -> int:
        return self._volumes.size_bytes(name)

    async def plan_mount(self, request: MountRequest, target: str, *, fill_from: Rootfs | None) -> PlannedMount:
        return await asyncio.to_thread(
            mounting.plan_mount, request, target, fill_from, volumes=self._volumes, views=self._views
        )


def _layer(upper: Path, setting: Setting) -> Iterator[bytes]:
    with explained("read the container's files"), Root(upper, links=Links.REFUSE) as root:
        yield from write_layer(root, setting)


def _export(path: Path, shift: Shift) -> Iterator[bytes]:
    with explained("read the container's files"), Root(path, links=Links.REFUSE) as root:
        yield from write_root(root, shift)
