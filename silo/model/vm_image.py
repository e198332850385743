"""The image of utility VMs: what the isolation level hyperv boots, as the engine and its clients see it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class VmImage(msgspec.Struct, frozen=True, kw_only=True):
    """`directory` holds vmlinuz, initrd.img and root.erofs; `id` is the hash of what they were made from."""

    id: str
    directory: Path
    kernel_release: str
    created_s: int
    size_bytes: int
