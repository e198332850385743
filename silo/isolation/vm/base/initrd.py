"""The first root of a utility VM: a static busybox, kernel modules, and the script that finds the real root (init.sh).

Not compressed: 8.3 MB instead of 3.1 (lz4) or 2.0 (zstd) on disk, and no tool of the host. Three boots each under TCG took 5.5 to
5.7 s, lz4 5.2 to 5.8 s, zstd 5.3 to 6.1 s: no difference.

    init                 init.sh
    bin/busybox, bin/*   and links to it
    modules/order        file names, in loading order
    modules/*.ko         not compressed: the kernel's own loader takes them as they are
    base scratch root    where init.sh mounts
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from silo.isolation.vm.base import cpio
from silo.isolation.vm.base.kernel import Module

INIT = Path(__file__).with_name("init.sh")
APPLETS = ("insmod", "ip", "mkdir", "mount", "sh", "switch_root", "usleep")
"""What init.sh calls."""

_MOUNT_POINTS = ("base", "dev", "proc", "root", "scratch", "sys")


def initrd_entries(init: bytes, busybox: bytes, modules: Sequence[Module]) -> Iterator[cpio.Entry]:
    """Everything in the initrd, in the archive's order."""
    for name in _MOUNT_POINTS:
        yield cpio.directory(name)
    # The kernel opens it for the first process, before anything is mounted.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.directory("bin")
    yield cpio.file("bin/busybox", busybox, 0o755)
    for name in APPLETS:
        yield cpio.link(f"bin/{name}", "busybox")
    yield cpio.directory("modules")
    yield cpio.file("modules/order", "".join(f"{module.name}.ko\n" for module in modules).encode())
    for module in modules:
        yield cpio.file(f"modules/{module.name}.ko", module.data)
    yield cpio.file("init", init, 0o755)
