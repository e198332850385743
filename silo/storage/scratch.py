"""Containers' directories on disk.

    containers/<id>/upper, work    the scratch layer (overlayfs)
    containers/<id>/…              log, exit.json, hosts: written by others
    trash/                         what is being deleted

The directories are closed to everybody but root: files in `upper` keep the owners that the container sees, so a set-uid
program of a container's root would be one of the host's.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from silo.errors import Conflict, NotFound
from silo.model.ids import ID_PATTERN
from silo.storage.failures import explained
from silo.storage.trash import Trash


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

    def create(self, container_id: str) -> None:
        """Raises Conflict, NoSpace; leaves nothing half-made."""
        path = self.path(container_id)
        with explained(f"make the directory of container {container_id[:12]}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                raise Conflict(f"the directory of container {container_id[:12]} exists already") from None
            try:
                (path / "work").mkdir(mode=0o700)
                # the root directory of the container: its mode must not hang on the daemon's umask
                (path / "upper").mkdir()
                (path / "upper").chmod(0o755)
            except BaseException:
                self._trash.throw(path)
                raise

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        with explained(f"remove the directory of container {container_id[:12]}"):
            self._trash.throw(self.path(container_id))

    def ids(self) -> tuple[str, ...]:
        try:
            return tuple(entry.name for entry in os.scandir(self._directory) if ID_PATTERN.match(entry.name))
        except FileNotFoundError:
            return ()


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
