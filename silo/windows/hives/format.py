"""The cells of a hive file (regf 1.3 to 1.6) as they lie on disk; all numbers are little-endian. Pure.

A file is a base block of 4096 bytes and bins, each a multiple of 4096 bytes with a header of 32. Bins are tiled by cells: a
signed size (negative when allocated, a multiple of 8, itself included), then data. Offsets count from the first bin.

    nk  key: its name, and the offsets of lf/lh/li/ri, of the list of values, of its security and class name
    lf lh li  a list of subkeys, with a hint, a hash or nothing besides each offset; ri  a list of such lists
    vk  value: its name, type, and data within (up to 4 bytes) or elsewhere
    db  data of more than 16344 bytes, in segments
    sk  a security descriptor, shared by keys, all in one ring

Source: msuhanov/regf, "Windows registry file format specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import reduce
from operator import xor

from silo.model.windows_names import fold, units

PAGE = 4096
BIN_HEADER_SIZE = 32
CELL_ALIGNMENT = 8
NO_OFFSET = 0xFFFFFFFF

MINOR_VERSIONS = range(3, 7)
BIG_DATA_SINCE = 4
HASHES_SINCE = 5
LAYERS_SINCE = 6

BASE_SIGNATURE = b"regf"
BIN_SIGNATURE = b"hbin"

# signature, two sequence numbers, time, major, minor, type, format, root, size of the bins, clustering, name
BASE_BLOCK = struct.Struct("<4sIIQIIIIIII64s")
BASE_FLAGS_OFFSET = 144
CHECKSUM_OFFSET = 508
FLAG_LAYERED = 0x2
FILE_NAME_UNITS = 32

# signature, offset, size, reserved, time, spare
BIN_HEADER = struct.Struct("<4sIIQQI")

# signature, flags, time, access, layering, spare, parent, subkeys, volatile subkeys, list, volatile list, values, list of values,
# security, class; the longest name below, user flags, debug, longest class, longest value's name, largest data, WorkVar; sizes of
# name and class
KEY = struct.Struct("<2sHQBBHIIIIIIIIIHBBIIIIHH")
KEY_LINKS = struct.Struct("<2s18xI4xI40xH2x")
"""Of KEY: signature, subkeys, their list, size of the name."""
KEY_CONTENT = struct.Struct("<2xHQxB22xIIII2xB17xHH")
"""Of KEY: flags, time, layering, values, their list, security, class, user flags, sizes of name and class."""
KEY_SIGNATURE = b"nk"
KEY_VOLATILE = 0x0001
KEY_HIVE_EXIT = 0x0002
KEY_HIVE_ENTRY = 0x0004
KEY_NO_DELETE = 0x0008
"""Every root has it, and nothing else."""
KEY_COMPRESSED_NAME = 0x0020
KEY_PREDEFINED_HANDLE = 0x0040
"""The number of values is a handle, and there are none."""
KEY_OF_THE_FILE = (
    KEY_VOLATILE | KEY_HIVE_EXIT | KEY_HIVE_ENTRY | KEY_NO_DELETE | KEY_COMPRESSED_NAME | KEY_PREDEFINED_HANDLE
)
"""Flags that say how the key lies in a file and are no part of what it says."""
INHERIT_CLASS = 0x80
LAYERING_MASK = 0x03
MAXIMUM_KEY_NAME_UNITS = 255

# signature, size of the name, size of the data, its offset or itself, type, flags, spare
VALUE = struct.Struct("<2sHIIIHH")
VALUE_SIGNATURE = b"vk"
VALUE_COMPRESSED_NAME = 0x0001
VALUE_TOMBSTONE = 0x0002
DATA_WITHIN = 0x80000000
DATA_WITHIN_BYTES = 4
MAXIMUM_VALUE_NAME_UNITS = 16383

# signature, next, previous, keys that use it, size
SECURITY = struct.Struct("<2sHIIII")
SECURITY_SIGNATURE = b"sk"

LIST_HEADER = struct.Struct("<2sH")
LIST_WORDS = {b"li": 1, b"lf": 2, b"lh": 2}
"""Numbers for each subkey in a list: its offset, and maybe a hint."""
LIST_OF_LISTS = b"ri"
LEAF_ENTRIES = 507
"""Of an lf or lh, which then fills a bin of one page."""

BIG_DATA = struct.Struct("<2sHI")
BIG_DATA_SIGNATURE = b"db"
SEGMENT_BYTES = 16344


def checksum(base_block: bytes | bytearray | memoryview) -> int:
    """XOR of the first 127 numbers; the two results that could be mistaken for nothing are changed."""
    total = reduce(xor, struct.unpack_from("<127I", base_block), 0)
    return {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total)


def name_hash(name: str) -> int:
    """What an lh holds beside each offset."""
    return reduce(lambda total, unit: (total * 37 + unit) & 0xFFFFFFFF, _numbers(fold(name)), 0)


def name_hint(name: str) -> bytes:
    """What an lf holds beside each offset: the first four characters, where each fits a byte."""
    if any(ord(character) > 0xFF for character in name):
        return bytes(4)
    return name.encode("latin-1")[:4].ljust(4, b"\0")


def _numbers(text: str) -> Iterable[int]:
    data = units(text)
    return struct.unpack(f"<{len(data) // 2}H", data)


def aligned(size: int, alignment: int = CELL_ALIGNMENT) -> int:
    """The next multiple."""
    return -(-size // alignment) * alignment
