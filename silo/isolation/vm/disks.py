"""Disks plugged into a running machine: a container's image and its scratch come to a clone that has neither.

QEMU gets descriptors, not paths: its jail shows none of these files, and a read-only one cannot be opened for writing.
"""

from __future__ import annotations

import os

from silo.isolation.vm.command import hot_plug_bus
from silo.isolation.vm.qmp import QmpClient


async def plug_disk(monitor: QmpClient, descriptor: int, *, place: int, serial: str, read_only: bool) -> None:
    """A raw image as the virtio disk `serial` at hot-plug place `place`; the descriptor stays the caller's.

    The guest finds it a moment later (/sys/block/*/serial). Raises HostError, Unavailable.
    """
    await monitor.execute("add-fd", descriptors=[descriptor], fdset_id=place + 1)
    driver = {"driver": "file", "filename": f"/dev/fdset/{place + 1}"}
    await monitor.execute("blockdev-add", driver="raw", node_name=serial, file=driver, read_only=read_only)
    await monitor.execute(
        "device_add", driver="virtio-blk-pci", bus=hot_plug_bus(place), drive=serial, serial=serial, id=f"disk-{serial}"
    )


def open_disk(path: str | os.PathLike[str], *, read_only: bool) -> int:
    """A descriptor for `plug_disk`; its mode is what QEMU may do."""
    return os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
