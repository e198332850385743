"""What the first bytes of an untrusted disk say, before any program opens it: its format, and what rules it out. Pure.

Sources: QEMU's docs/interop/qcow2.txt; the VMDK 5.0 specification; MS-VHDX; UEFI 2.10, 5.3 (GPT) and 5.2.1 (MBR).
"""

from __future__ import annotations

import struct

from silo.errors import InvalidRequest
from silo.isolation.vm.whole.command import DiskFormat

HEAD_BYTES = 65536
_SECTOR = 512
_QCOW2_HEAD = struct.Struct(">4sIQI4xQI")
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
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


def parse_format(name: str) -> DiskFormat | None:
    """A user's word; "" is None: to be seen from the disk. Raises InvalidRequest."""
    if not name:
        return None
    try:
        return DiskFormat(name)
    except ValueError:
        known = ", ".join(DiskFormat)
        raise InvalidRequest(f"{name!r} is no format of a disk", hint=f"there are {known}") from None


def choose_format(untrusted_head: bytes, size_bytes: int, asked: DiskFormat | None, name: str) -> DiskFormat:
    """The format that QEMU is told, `name` being the file's for messages. Raises InvalidRequest with the way out.

    A disk that is asked to be raw is raw: whoever wrote to it as such may have written any other format's first bytes.
    """
    if size_bytes == 0:
        raise InvalidRequest(f"{name} is empty, not a disk")
    if asked is DiskFormat.RAW:
        _check_raw_size(size_bytes, name)
        return DiskFormat.RAW
    found = _find_format(untrusted_head)
    if asked is not None and found is not asked:
        raise InvalidRequest(f"{name} is no {asked.value} disk", details=f"it looks like {found or 'none'}")
    if found is None:
        _refuse_known_others(untrusted_head, name)
        raise InvalidRequest(
            f"{name} is no disk that can be recognised",
            details="neither qcow2, vhdx, vmdk nor a partition table",
            hint="a raw disk without one has to be named as raw",
        )
    if found is DiskFormat.RAW:
        _check_raw_size(size_bytes, name)
    if found is DiskFormat.QCOW2:
        _check_qcow2(untrusted_head, name)
    return found


def _find_format(untrusted_head: bytes) -> DiskFormat | None:
    if untrusted_head.startswith(b"QFI\xfb"):
        return DiskFormat.QCOW2
    if untrusted_head.startswith(b"vhdxfile"):
        return DiskFormat.VHDX
    if untrusted_head.startswith(b"KDMV"):
        return DiskFormat.VMDK
    is_iso = untrusted_head[0x8001:0x8006] == b"CD001"
    has_gpt = any(untrusted_head[sector : sector + 8] == b"EFI PART" for sector in (512, 4096))
    has_boot_code = untrusted_head[510:512] == b"\x55\xaa"
    return DiskFormat.RAW if (has_gpt or has_boot_code) and not is_iso else None


def _refuse_known_others(untrusted_head: bytes, name: str) -> None:
    for magic, offset, what in _KNOWN_OTHERS:
        if untrusted_head[offset : offset + len(magic)] == magic:
            raise InvalidRequest(f"{name} is {what}, which cannot be run as it is", hint=_CONVERT)


def _check_raw_size(size_bytes: int, name: str) -> None:
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
