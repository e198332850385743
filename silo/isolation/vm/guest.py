"""The machine that boots a utility VM image: which files it gets, what its kernel is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from silo.errors import HostError
from silo.isolation.vm.command import Accelerator, Machine

_ALIGNMENT = 2 << 20
# panic=-1: a guest that panics reboots at once, which -no-reboot makes its end. swiotlb: bounce buffers for devices that cannot
# reach high memory, of which there are none, would take 64 MiB as soon as memory could lie above 4 GiB.
_APPEND = "console=ttyS0 quiet panic=-1 swiotlb=noforce silo.root=/dev/pmem0 silo.dax=1"

# a build alone finds the damaged one and takes it
_REBUILD = "silo base rm --force vm default; silo base build vm"


def build_guest(image: Path, *, memory_bytes: int, accelerator: Accelerator) -> tuple[Machine, Mapping[str, Path]]:
    """From an image's directory (vmlinuz, initrd.img, root.erofs). Raises HostError for one that is damaged."""
    files = {f"/guest/{name}": image / name for name in ("vmlinuz", "initrd.img", "root.erofs")}
    try:
        root_bytes = (image / "root.erofs").stat().st_size
        missing = [str(path) for path in files.values() if not path.is_file()]
    except OSError as error:
        raise HostError("the utility VM's image is damaged", details=str(error), hint=_REBUILD) from error
    if missing or not root_bytes or root_bytes % _ALIGNMENT:
        details = f"not there: {', '.join(missing)}" if missing else f"root.erofs has {root_bytes} bytes"
        raise HostError("the utility VM's image is damaged", details=details, hint=_REBUILD)
    machine = Machine(
        memory_bytes=memory_bytes,
        accelerator=accelerator,
        kernel=PurePosixPath("/guest/vmlinuz"),
        initrd=PurePosixPath("/guest/initrd.img"),
        append=_APPEND,
        root=PurePosixPath("/guest/root.erofs"),
        root_bytes=root_bytes,
    )
    return machine, files
