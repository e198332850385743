"""What the first bytes of an untrusted disk say before any program opens it: do they fit its format, what rules it out? Pure.

Sources: QEMU's docs/interop/qcow2.txt; the VMDK 5.0 specification; MS-VHDX; UEFI 2.10, 5.3 (GPT) and 5.2.1 (MBR).
"""

from __future__ import annotations

import struct

from silo.errors import InvalidRequest
from silo.model.disk_guest import DiskFormat

HEAD_BYTES = 65536
_SECTOR = 512
_QCOW2_HEAD = struct.Struct(">4sIQI4xQI")
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
_MAGIC = {DiskFormat.QCOW2: b"QFI\xfb", DiskFormat.VHDX: b"vhdxfile", DiskFormat.VMDK: b"KDMV"}
_KNOWN_OTHERS = (
    (b"# Disk DescriptorFile", 0, "the description of a VMDK whose contents lie in other files"),
    (b"COWD", 0, "a VMDK of an old ESX"),
    (b"QED\0", 0, "a QED disk"),
    (b"conectix", 0, "a VHD"),
    (b"\x7f\x10\xda\xbe", 0x40, "a VDI"),
    (b"CD001", 0x8001, "the image of a CD"),
    (b"\x1f\x8b", 0, "compressed by gzip"),
    (b"\xfd7zXZ\0", 0, "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", 0, "compressed by zstd"),
    (b"PK\x03\x04", 0, "a ZIP archive"),
)
_CONVERT = "make one that stands alone: qemu-img convert -O qcow2 FILE NEW.qcow2"
_FORMATS = f"--disk-format {'|'.join(DiskFormat)}; qemu-img convert -O qcow2 makes a disk of most others"


def check_head(untrusted_head: bytes, size_bytes: int, disk_format: DiskFormat, name: str) -> None:
    """Whether this can be a disk of this format; `name` is the file's, for messages. Raises InvalidRequest with the way out.

    The format is never guessed: a guest may have written any other format's first bytes to its raw disk.
    """
    if size_bytes == 0:
        raise InvalidRequest(f"{name} is empty, not a disk")
    if disk_format is DiskFormat.RAW:
        _check_raw(untrusted_head, size_bytes, name)
    elif not untrusted_head.startswith(_MAGIC[disk_format]):
        raise InvalidRequest(f"{name} is no {disk_format} disk", details=_describe(untrusted_head), hint=_FORMATS)
    if disk_format is DiskFormat.QCOW2:
        _check_qcow2(untrusted_head, name)


def _describe(untrusted_head: bytes) -> str:
    for disk_format, magic in _MAGIC.items():
        if untrusted_head.startswith(magic):
            return f"it looks like {disk_format}"
    for magic, offset, what in _KNOWN_OTHERS:
        if untrusted_head[offset : offset + len(magic)] == magic:
            return f"it looks like {what}"
    return (
        "it looks like a raw disk"
        if _is_bootable(untrusted_head)
        else "it has no partition table or boot sector either"
    )


def _is_bootable(untrusted_head: bytes) -> bool:
    has_gpt = any(untrusted_head[sector : sector + 8] == b"EFI PART" for sector in (512, 4096))
    return has_gpt or untrusted_head[510:512] == b"\x55\xaa"


def _check_raw(untrusted_head: bytes, size_bytes: int, name: str) -> None:
    """Neither firmware starts a disk without a boot sector or a partition table."""
    if not _is_bootable(untrusted_head):
        raise InvalidRequest(f"{name} is no raw disk that could boot", details=_describe(untrusted_head), hint=_FORMATS)
    if size_bytes % _SECTOR:
        raise InvalidRequest(f"{name} is no raw disk: its size of {size_bytes} bytes is no whole number of sectors")


def _check_qcow2(untrusted_head: bytes, name: str) -> None:
    """QEMU is asked the same again; here a header is refused before anything acts on it."""
    if len(untrusted_head) < 104:
        raise InvalidRequest(f"{name} is no qcow2 disk: it ends within its header")
    _, version, backing_offset, _, _, encryption = _QCOW2_HEAD.unpack_from(untrusted_head)
    if version not in (2, 3):
        raise InvalidRequest(f"{name} is a qcow2 disk of the unknown version {version}", hint=_CONVERT)
    if backing_offset:
        raise InvalidRequest(f"{name} names a backing file, which could be any file of this host", hint=_CONVERT)
    if encryption:
        raise InvalidRequest(f"{name} is encrypted", hint=_CONVERT)
    features = struct.unpack_from(">Q", untrusted_head, 72)[0] if version == 3 else 0
    if features & _EXTERNAL_DATA:
        raise InvalidRequest(
            f"{name} keeps its contents in another file, which could be any of this host", hint=_CONVERT
        )
    if features & _CORRUPT:
        raise InvalidRequest(f"{name} is marked as corrupt", hint=f"qemu-img check -r all {name}")
