"""What a disk's first bytes lead to."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.isolation.vm.whole.command import DiskFormat
from silo.isolation.vm.whole.headers import choose_format, parse_format

BOOT = bytes(510) + b"\x55\xaa" + bytes(512)


def qcow2(*, version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, 1 << 20, encryption)
    return head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(64)


def choose(head: bytes, asked: DiskFormat | None = None, size: int = 1 << 20) -> DiskFormat:
    return choose_format(head, size, asked, "the disk")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (qcow2(), DiskFormat.QCOW2),
        (qcow2(version=2), DiskFormat.QCOW2),
        (b"vhdxfile", DiskFormat.VHDX),
        (b"KDMV\1\0\0\0", DiskFormat.VMDK),
        (BOOT, DiskFormat.RAW),
        (bytes(512) + b"EFI PART", DiskFormat.RAW),
        (bytes(4096) + b"EFI PART", DiskFormat.RAW),
    ],
)
def test_recognised(head: bytes, expected: DiskFormat) -> None:
    assert choose(head) is expected
    assert choose(head, expected) is expected


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (qcow2(backing=512), "names a backing file"),
        (qcow2(encryption=1), "is encrypted"),
        (qcow2(version=1), "unknown version 1"),
        (qcow2(features=1 << 2), "contents in another file"),
        (qcow2(features=1 << 1), "corrupt"),
        (qcow2()[:100], "ends within its header"),
        (b"# Disk DescriptorFile\n", "contents lie in other files"),
        (b"conectix", "a VHD"),
        (b"QED\0", "a QED"),
        (b"COWD", "old ESX"),
        (b"\x1f\x8b\x08", "gzip"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "a VDI"),
        (bytes(510) + b"\x55\xaa" + bytes(0x8001 - 512) + b"CD001", "a CD"),
        (b"hello", "no disk that can be recognised"),
    ],
)
def test_refused_with_the_way_out(head: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        choose(head)
    assert refused.value.hint or "ends within" in words


def test_raw_is_what_is_called_raw() -> None:
    """A guest may have written anything to the beginning of its disk."""
    assert choose(qcow2(backing=512), DiskFormat.RAW) is DiskFormat.RAW
    assert choose(b"", DiskFormat.RAW) is DiskFormat.RAW
    for asked in (None, DiskFormat.RAW):
        with pytest.raises(InvalidRequest, match="whole number of sectors"):
            choose(BOOT, asked, size=1000)
    with pytest.raises(InvalidRequest, match="empty"):
        choose(b"", DiskFormat.RAW, size=0)


def test_what_is_asked_has_to_be_there() -> None:
    with pytest.raises(InvalidRequest, match="is no vhdx disk: it looks like qcow2"):
        choose(qcow2(), DiskFormat.VHDX)
    assert parse_format("") is None and parse_format("vhdx") is DiskFormat.VHDX
    with pytest.raises(InvalidRequest, match="raw, qcow2, vhdx, vmdk"):
        parse_format("iso")


@given(st.binary(max_size=300), st.sampled_from([b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3", b"KDMV", b"vhdxfile"]))
def test_any_bytes_are_a_format_or_a_refusal(tail: bytes, magic: bytes) -> None:
    try:
        assert choose(magic + tail) in DiskFormat
    except InvalidRequest as error:
        assert error.brief
