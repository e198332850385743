"""Bounds on what an image may be: generous for real ones, fatal for bombs."""

from __future__ import annotations

import msgspec

_MIB = 1 << 20
_GIB = 1 << 30


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the image store; a breach is InvalidRequest (or NoSpace for `free_bytes`)."""

    layer_bytes: int = 64 * _GIB
    """Unpacked size of one layer."""
    layer_entries: int = 5_000_000
    compression_ratio: int = 500
    """Unpacked by packed size of a layer; asked only above `ratio_floor_bytes`, since small things compress well."""
    ratio_floor_bytes: int = _GIB
    document_bytes: int = 8 * _MIB
    """A manifest, config or index."""
    archive_bytes: int = 512 * _GIB
    archive_entries: int = 100_000
    images_per_archive: int = 10_000
    layers_per_image: int = 500
    """Docker's overlay stops at 128; the kernel's overlayfs at 500."""
    free_bytes: int = 64 * _MIB
    """What unpacking leaves free on the disk for everybody else."""
