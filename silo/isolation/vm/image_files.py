"""Images as files that a VM can have: the layers of a container's image, merged, as one read-only EROFS file system.

<directory>/
  <key>.erofs    key: the SHA-256 of which directories its layers are, and when they were made
  empty-<size>   what stands in a slot that a VM does not use

A file is as large as the slot of the machine that it goes into (sparse, see command.py). It holds plain data, uncompressed and
aligned, so that a guest that maps it (DAX) reads the host's page cache, which all VMs share.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import CommandFailed, HostError, NoSpace, Unsupported
from silo.host import mounts
from silo.host.run import run
from silo.isolation.vm.command import IMAGE_BYTES, MAPPED_BYTES

_BUILD_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class ImageFile:
    """`mapped`: it goes into the slot that the guest has as memory, else into that of a disk."""

    path: Path
    mapped: bool


class ImageFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._building: dict[str, asyncio.Task[ImageFile]] = {}

    def open(self) -> None:
        """Take away what a killed daemon left half made, and files of layers that are gone. Blocks."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(os.scandir(self._directory)):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                while mounts.unmount(path):
                    pass
                path.rmdir()
            elif path.suffix == ".new" or (path.suffix == ".layers" and not _all_there(path)):
                path.with_suffix(".erofs").unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def empty(self, size_bytes: int) -> Path:
        path = self._directory / f"empty-{size_bytes}"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444)
            os.ftruncate(descriptor, size_bytes)
            os.close(descriptor)
        return path

    async def find(self, layers: Sequence[Path]) -> ImageFile | None:
        """The layers' file for whichever slot, if there is one."""
        for map_it in (True, False):
            path = self._directory / f"{await asyncio.to_thread(_key, layers, map_it)}.erofs"
            with contextlib.suppress(FileNotFoundError):
                return ImageFile(path, path.stat().st_size == MAPPED_BYTES)
        return None

    async def ensure(self, layers: Sequence[Path], *, map_it: bool) -> ImageFile:
        """The layers (topmost first) as a file, made on first use. `map_it`: if it is small enough for that.

        Raises HostError, NoSpace, Unsupported (larger than any slot).
        """
        key = await asyncio.to_thread(_key, layers, map_it)
        path = self._directory / f"{key}.erofs"
        with contextlib.suppress(FileNotFoundError):
            return ImageFile(path, path.stat().st_size == MAPPED_BYTES)
        building = self._building.get(key)
        if building is None:
            building = asyncio.create_task(asyncio.to_thread(self._build, path, tuple(layers), map_it))
            self._building[key] = building
            building.add_done_callback(lambda _: self._building.pop(key, None))
        # whoever waits may be cancelled; the others still want it
        return await asyncio.shield(building)

    def _build(self, path: Path, layers: tuple[Path, ...], map_it: bool) -> ImageFile:
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        try:
            with self._merged(layers) as root:
                run(["mkfs.erofs", "--quiet", "-Enoinline_data", fresh, root], timeout_s=_BUILD_LIMIT_S)
            size = fresh.stat().st_size
            slot = MAPPED_BYTES if map_it and size <= MAPPED_BYTES else IMAGE_BYTES
            if size > slot:
                raise Unsupported(
                    f"the image has {size >> 30} GiB, and a VM takes at most {slot >> 30}",
                    hint="use --isolation process",
                )
            os.truncate(fresh, slot)
            # QEMU, which runs as nobody of this host's, opens it again by its descriptor
            fresh.chmod(0o444)
            path.with_suffix(".layers").write_text("\n".join(map(str, layers)))
            fresh.rename(path)
        except (CommandFailed, OSError) as error:
            if getattr(error, "errno", 0) == errno.ENOSPC or "No space left" in str(getattr(error, "details", "")):
                raise NoSpace(f"no space left for the image's file in {self._directory}") from error
            raise HostError("the image cannot be made into a file for VMs", details=str(error)) from error
        finally:
            fresh.unlink(missing_ok=True)
        return ImageFile(path, slot == MAPPED_BYTES)

    @contextlib.contextmanager
    def _merged(self, layers: tuple[Path, ...]) -> Iterator[Path]:
        if len(layers) == 1:
            yield layers[0]
            return
        place = self._directory / secrets.token_hex(8)
        place.mkdir()
        try:
            mounts.mount_overlay(place, lowers=[str(layer) for layer in layers], read_only=True)
            yield place
        finally:
            mounts.unmount(place)
            place.rmdir()


def _key(layers: Sequence[Path], map_it: bool) -> str:
    """A layer never changes; one that was removed and unpacked again is another directory."""
    words = ["mapped" if map_it else "disk"]
    for layer in layers:
        status = layer.stat()
        words.append(f"{layer}:{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _all_there(listing: Path) -> bool:
    return all(Path(line).is_dir() for line in listing.read_text().splitlines())
