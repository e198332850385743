"""Scratch disks: a container's writable layer as an ext4 image of its own, which only guests ever mount.

<directory>/pristine-<size>   an empty one, with the directories that overlayfs wants; every container's begins as its copy

Files are sparse: one takes 1 MiB and a journal at first, and grows as the container writes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from pathlib import Path

from silo.errors import HostError, InvalidRequest, NoSpace
from silo.host.durable import host_error
from silo.host.ext4_images import make_layer_image


class ScratchDisks:
    """All of one size, because they go into one slot of the machine."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.directory = directory
        self.size_bytes = size_bytes

    def open(self) -> None:
        """Make the one that is copied, if it is not there. Blocks. Raises HostError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._pristine.exists():
            return
        fresh = self._pristine.with_suffix(".new")
        make_layer_image(fresh, file_bytes=self.size_bytes, size_bytes=self.size_bytes)
        fresh.rename(self._pristine)

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Take away what a former daemon's templates and pool left. Blocks."""
        if self.directory.is_dir():
            for entry in list(os.scandir(self.directory)):
                if (
                    Path(entry.path) not in keep
                    and not entry.name.startswith("pristine-")
                    and entry.is_file(follow_symlinks=False)
                ):
                    Path(entry.path).unlink(missing_ok=True)

    @property
    def _pristine(self) -> Path:
        return self.directory / f"pristine-{self.size_bytes}.img"

    def create(self, path: Path) -> None:
        """An empty scratch at `path`, whole or not at all. Blocks for a few milliseconds. Raises NoSpace, HostError."""
        self.open()
        self.copy(self._pristine, path)

    def create_limited(self, path: Path, size_bytes: int) -> None:
        """As `create`, with a file system that is smaller than the disk, which has the slot's size. Blocks for a tenth of a
        second. Raises InvalidRequest for one that is larger, NoSpace, HostError."""
        if size_bytes > self.size_bytes:
            raise InvalidRequest(
                f"--storage-opt size={size_bytes} is more than a virtual machine's disk has ({self.size_bytes} bytes)",
                hint="the daemon's setting vm_scratch_bytes says how large these are",
            )
        fresh = path.with_suffix(".new")
        try:
            make_layer_image(fresh, file_bytes=self.size_bytes, size_bytes=size_bytes)
            fresh.rename(path)
        except OSError as error:
            raise host_error(error, f"a container's disk cannot be made in {path.parent}") from error
        finally:
            fresh.unlink(missing_ok=True)

    def copy(self, original: Path, path: Path) -> None:
        """As `create`, of another disk that no machine runs on: that of a template whose silo has written to it."""
        fresh = path.with_suffix(".new")
        try:
            source = os.open(original, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _allocate(fresh, self.size_bytes)
                target = os.open(fresh, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    _copy_data(source, target, self.size_bytes)
                finally:
                    os.close(target)
            finally:
                os.close(source)
            fresh.rename(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(f"no space left for a container's disk in {path.parent}") from error
            raise HostError("a container's disk cannot be made", details=str(error)) from error


def _allocate(path: Path, size_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _copy_data(source: int, target: int, size_bytes: int) -> None:
    """What is no hole."""
    at = 0
    while at < size_bytes:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            count = os.copy_file_range(source, target, end - at, at, at)
            if count == 0:
                raise OSError(errno.EIO, "the disk that is copied has been cut short")
            at += count
