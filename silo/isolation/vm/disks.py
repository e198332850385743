"""Disks plugged into a running machine: a container's image and its scratch come to a clone that has neither.

QEMU gets descriptors, not paths: its jail shows none of these files, and a read-only one cannot be opened for writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from silo.isolation.vm.command import hot_plug_bus
from silo.isolation.vm.qmp import QmpClient

# ioctl(2), `include/uapi/linux/fs.h`: share the source's blocks
_FICLONE = 0x40049409


async def plug_disk(monitor: QmpClient, descriptor: int, *, place: int, serial: str, read_only: bool) -> None:
    """A raw image as the virtio disk `serial` at hot-plug place `place`; the descriptor stays the caller's.

    The guest finds it a moment later (/sys/block/*/serial). Raises HostError, Unavailable.
    """
    await monitor.execute("add-fd", descriptors=[descriptor], fdset_id=place + 1)
    if not read_only:
        # QEMU opens a disk for reading first, and takes of a set the descriptor whose mode is right
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await monitor.execute("add-fd", descriptors=[reading], fdset_id=place + 1)
        finally:
            os.close(reading)
    driver = {"driver": "file", "filename": f"/dev/fdset/{place + 1}"}
    await monitor.execute("blockdev-add", driver="raw", node_name=serial, file=driver, read_only=read_only)
    await monitor.execute(
        "device_add", driver="virtio-blk-pci", bus=hot_plug_bus(place), drive=serial, serial=serial, id=f"disk-{serial}"
    )


def open_disk(path: str | os.PathLike[str], *, read_only: bool) -> int:
    """A descriptor for `plug_disk`; its mode is what QEMU may do."""
    return os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)


def copy_disk(source: Path, target: Path) -> None:
    """A raw image with its holes; a file system that shares blocks copies none. Blocking. Raises OSError."""
    with open(source, "rb") as reader, open(target, "xb", buffering=0) as writer:
        os.fchmod(writer.fileno(), 0o600)
        with contextlib.suppress(OSError):
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
            return
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        at = 0
        while (extent := _next_extent(reader.fileno(), at)) is not None:
            at, end = extent
            while at < end:
                at += os.copy_file_range(reader.fileno(), writer.fileno(), end - at, at, at)


def _next_extent(descriptor: int, at: int) -> tuple[int, int] | None:
    try:
        start = os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError:  # ENXIO: a hole to the end
        return None
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)
