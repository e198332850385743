"""What a disk's first bytes lead to."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.isolation.vm.whole.headers import check_head
from silo.model.disk_guest import DiskFormat

BOOT = bytes(510) + b"\x55\xaa" + bytes(512)


def qcow2(*, version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, 1 << 20, encryption)
    return head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(64)


def check(head: bytes, disk_format: DiskFormat, size: int = 1 << 20) -> None:
    check_head(head, size, disk_format, "the disk")


@pytest.mark.parametrize(
    ("head", "disk_format"),
    [
        (qcow2(), DiskFormat.QCOW2),
        (qcow2(version=2), DiskFormat.QCOW2),
        (b"vhdxfile", DiskFormat.VHDX),
        (b"KDMV\1\0\0\0", DiskFormat.VMDK),
        (BOOT, DiskFormat.RAW),
        (bytes(512) + b"EFI PART", DiskFormat.RAW),
        (bytes(4096) + b"EFI PART", DiskFormat.RAW),
        # whatever a guest has written to the beginning of its raw disk
        (qcow2(backing=512).ljust(510, b"\0") + b"\x55\xaa", DiskFormat.RAW),
    ],
)
def test_a_disk_of_its_format(head: bytes, disk_format: DiskFormat) -> None:
    check(head, disk_format)
    with pytest.raises(InvalidRequest, match="empty"):
        check(head, disk_format, size=0)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (qcow2(backing=512), "names a backing file"),
        (qcow2(encryption=1), "is encrypted"),
        (qcow2(version=1), "unknown version 1"),
        (qcow2(features=1 << 2), "contents in another file"),
        (qcow2(features=1 << 1), "corrupt"),
        (qcow2()[:100], "ends within its header"),
        (b"vhdxfile", "is no qcow2 disk: it looks like vhdx"),
        (BOOT, "is no qcow2 disk: it looks like a raw disk"),
        (b"# Disk DescriptorFile\n", "contents lie in other files"),
        (b"conectix", "a VHD"),
        (b"QED\0", "a QED"),
        (b"COWD", "old ESX"),
        (b"\x1f\x8b\x08", "gzip"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "a VDI"),
        (b"hello", "no partition table"),
        (b"", "no partition table"),
    ],
)
def test_refused_with_the_way_out(head: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        check(head, DiskFormat.QCOW2)
    assert refused.value.hint or "ends within" in words


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (qcow2(), "it looks like qcow2"),
        (bytes(0x8001) + b"CD001", "the image of a CD"),
        (bytes(1 << 16), "no partition table"),
        (b"", "no partition table"),
    ],
)
def test_a_raw_disk_that_nothing_could_boot(head: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check(head, DiskFormat.RAW)


def test_a_raw_disk_is_whole_sectors() -> None:
    with pytest.raises(InvalidRequest, match="whole number of sectors"):
        check(BOOT, DiskFormat.RAW, size=1000)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3", b"KDMV", b"vhdxfile"]),
    st.sampled_from(list(DiskFormat)),
)
def test_any_bytes_pass_or_are_refused(tail: bytes, magic: bytes, disk_format: DiskFormat) -> None:
    try:
        check(magic + tail, disk_format)
    except InvalidRequest as error:
        assert error.brief
