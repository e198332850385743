"""The images of utility VMs: what the isolation level hyperv boots, as the engine and its clients see them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

DEFAULT_VM_IMAGE = "default"
VM_LABEL = "com.silo.vm"
"""The label of a container or an image that names the utility VM to run in; `--vm` sets it."""
PARKED_LABEL = "com.silo.vm.parked"
"""The label (true, false) of a container or an image whose containers are cloned from a template of their own, in which they wait
begun; `--vm-parked` sets it."""
VM_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class VmImage(msgspec.Struct, frozen=True, kw_only=True):
    """`directory` holds vmlinuz, initrd.img and root.erofs; `id` is the hash of what they were made from.

    Several names may stand for one image; `name` is the one that it was asked for by.
    """

    id: str
    name: str = DEFAULT_VM_IMAGE
    directory: Path
    kernel_release: str
    created_s: int
    size_bytes: int


SCRATCH_DISK = "scratch.img"
"""What a container in a virtual machine writes, in its directory."""
