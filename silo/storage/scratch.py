"""Containers' directories on disk.

    containers/<id>/upper, work    the scratch layer (overlayfs)
    containers/<id>/limited.img    instead of these, where its size is limited: an ext4 file system that holds them,
    containers/<id>/limited/       and where it is mounted (in the daemon's namespace) from the first use to the removal
    containers/<id>/…              log, exit.json, hosts: written by others
    trash/                         what is being deleted

The directories are closed to everybody but root: files in `upper` keep the owners that the container sees, so a set-uid
program of a container's root would be one of the host's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from silo.errors import Conflict, NotFound
from silo.host import mounts
from silo.host.ext4_images import make_layer_image
from silo.host.loop_devices import loop_device
from silo.model.ids import ID_PATTERN
from silo.storage.failures import explained
from silo.storage.trash import Trash

_IMAGE = "limited.img"
_MOUNTED = "limited"


class Scratches:
    """All containers' directories under `directory`."""

    def __init__(self, directory: Path, trash: Trash) -> None:
        self._directory = directory
        self._trash = trash

    def path(self, container_id: str) -> Path:
        """Raises NotFound for what is not an id: it would be a path of its own making."""
        if not ID_PATTERN.match(container_id):
            raise NotFound(f"No such container: {container_id}")
        return self._directory / container_id

    def create(self, container_id: str, *, size_bytes: int = 0) -> None:
        """`size_bytes`: what may be written at most, 0 for as much as the host has.

        Raises Conflict, NoSpace, Unsupported and ToolMissing (what a limit needs); leaves nothing half-made.
        """
        path = self.path(container_id)
        with explained(f"make the directory of container {container_id[:12]}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                raise Conflict(f"the directory of container {container_id[:12]} exists already") from None
            try:
                if size_bytes:
                    make_layer_image(path / _IMAGE, file_bytes=size_bytes, size_bytes=size_bytes)
                    # now, and not at the first start, it is told what this host lacks
                    self.open(container_id)
                    return
                (path / "work").mkdir(mode=0o700)
                # the root directory of the container: its mode must not hang on the daemon's umask
                (path / "upper").mkdir()
                (path / "upper").chmod(0o755)
            except BaseException:
                self.remove(container_id)
                raise

    def open(self, container_id: str) -> Path:
        """The directory that holds `upper` and `work`. Raises NotFound, HostError, NoSpace, Unsupported (no loop device)."""
        path = self.path(container_id)
        place = path / _MOUNTED
        if _is_mounted(place) or not (path / _IMAGE).exists():
            return place if place.exists() else path
        with explained(f"mount the disk of container {container_id[:12]}"), loop_device(path / _IMAGE) as device:
            place.mkdir(mode=0o700, exist_ok=True)
            # what is deleted inside gives its space back to the host
            mounts.mount(device, place, "ext4", mounts.MS_NODEV, "discard")
        return place

    def discard(self, container_id: str) -> None:
        """As `remove`, at once and whatever comes: of one that was never known."""
        path = self.path(container_id)
        with contextlib.suppress(OSError):
            mounts.unmount(path / _MOUNTED)
        shutil.rmtree(path, ignore_errors=True)

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        path = self.path(container_id)
        with explained(f"remove the directory of container {container_id[:12]}"):
            mounts.unmount(path / _MOUNTED)
            self._trash.throw(path)

    def ids(self) -> tuple[str, ...]:
        try:
            return tuple(entry.name for entry in os.scandir(self._directory) if ID_PATTERN.match(entry.name))
        except FileNotFoundError:
            return ()


def _is_mounted(place: Path) -> bool:
    try:
        return place.stat().st_dev != place.parent.stat().st_dev
    except FileNotFoundError:
        return False


def disk_usage_bytes(path: Path) -> int:
    """Bytes on disk of a tree, hard links counted once; what vanishes meanwhile counts nothing."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(path)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total
