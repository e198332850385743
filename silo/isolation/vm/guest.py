"""The machine that boots a utility VM image: which files it gets, what its kernel is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from silo.errors import HostError
from silo.isolation.vm.base.damage import INITRD, KERNEL, ROOT, find_damage
from silo.isolation.vm.command import Accelerator, Machine

_ALIGNMENT = 2 << 20
# panic=-1: a guest that panics reboots at once, which -no-reboot makes its end. swiotlb: bounce buffers for devices that cannot
# reach high memory, of which there are none, would take 64 MiB as soon as memory could lie above 4 GiB.
_APPEND = "console=ttyS0 quiet panic=-1 swiotlb=noforce silo.root=/dev/pmem0 silo.dax=1"

_DIRECTORY = "/guest"
REBUILD = "silo base build vm finds what is damaged and builds it anew (--name: another one than default)"


def build_guest(image: Path, *, memory_bytes: int, accelerator: Accelerator) -> tuple[Machine, Mapping[str, Path]]:
    """From an image's directory (vmlinuz, initrd.img, root.erofs). Raises HostError for one that is damaged."""
    if damage := find_damage(image):
        raise _damaged(damage)
    root_bytes = (image / ROOT).stat().st_size
    if not root_bytes or root_bytes % _ALIGNMENT:
        raise _damaged(f"{ROOT} has {root_bytes} bytes")
    machine = Machine(
        memory_bytes=memory_bytes,
        accelerator=accelerator,
        kernel=PurePosixPath(_DIRECTORY, KERNEL),
        initrd=PurePosixPath(_DIRECTORY, INITRD),
        append=_APPEND,
        root=PurePosixPath(_DIRECTORY, ROOT),
        root_bytes=root_bytes,
    )
    return machine, {f"{_DIRECTORY}/{name}": image / name for name in (KERNEL, INITRD, ROOT)}


def _damaged(details: str) -> HostError:
    return HostError("the utility VM's image is damaged", details=details, hint=REBUILD)


def check_guest(files: Mapping[str, Path]) -> None:
    """What build_guest answered, by its digests: why does a machine not come up? Raises HostError when it is damaged. Blocks."""
    kernel = files.get(f"{_DIRECTORY}/{KERNEL}")
    if kernel is not None and (damage := find_damage(kernel.parent, digests=True)):
        raise _damaged(damage)
