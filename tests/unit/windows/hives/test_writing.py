"""What is written says the same when it is read, always in the same bytes, and what Windows could not load is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.model.windows_names import fold, sort_key
from silo.windows.hives import Hive, Key, Layering, Value, read_hive, write_hive
from silo.windows.hives.tree import MAXIMUM_DEPTH, tombstone, value_tombstone, walk
from silo.windows.hives.writing import DEFAULT_SECURITY
from tests.support.hives import xor32
from tests.support.registry_trees import TIMES, trees

FILE_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15)


def in_order(key: Key) -> Key:
    """As a file has it: subkeys sorted."""
    subkeys = sorted(map(in_order, key.subkeys), key=lambda subkey: sort_key(fold(subkey.name)))
    return replace(key, subkeys=tuple(subkeys))


@settings(deadline=None, max_examples=150)
@given(trees(), st.integers(3, 6), TIMES, FILE_NAMES)
def test_round_trip(root: Key, minor: int, modified: int, file_name: str) -> None:
    hive = Hive(root=root, minor_version=minor, modified=modified, file_name=file_name)
    data = write_hive(hive)
    back = read_hive(data)
    assert back == replace(hive, root=in_order(root))
    assert write_hive(back) == data


@settings(deadline=None, max_examples=150)
@given(trees(layers=True))
def test_round_trip_of_layers(root: Key) -> None:
    hive = Hive(root=root, minor_version=6, layered=True)
    assert read_hive(write_hive(hive)) == replace(hive, root=in_order(root))


def test_the_layout_of_a_small_file() -> None:
    data = write_hive(Hive(root=Key("ROOT"), minor_version=6, layered=True, file_name="x", modified=9))
    assert data[:4] == b"regf" and data[4:12] == struct.pack("<II", 1, 1) and len(data) == 8192
    assert struct.unpack_from("<IIIIII", data, 20) == (1, 6, 0, 1, 32, 4096)
    assert struct.unpack_from("<I", data, 144) == (2,) and struct.unpack_from("<I", data, 508) == (xor32(data),)
    assert data[4096:4128] == struct.pack("<4sIIQQI", b"hbin", 0, 4096, 0, 9, 0)
    # the root is the first cell: an entry of the hive that cannot be deleted, its name compressed
    assert struct.unpack_from("<i2sH", data, 4128) == (-88, b"nk", 0x2C) and data[4208:4212] == b"ROOT"


def test_security_descriptors_are_shared_and_inherited() -> None:
    own = b"\1\0\4\x80 own"
    root = Key("ROOT", subkeys=(Key("A", subkeys=(Key("B"),), security=own), Key("C")))
    data = write_hive(Hive(root=root))
    back = read_hive(data).root
    assert [key.security for _, key in walk(back)] == [DEFAULT_SECURITY, own, own, DEFAULT_SECURITY]
    assert data.count(own) == 1 == data.count(DEFAULT_SECURITY)
    at = data.index(own) - 20
    _, _, following, previous, references, size = struct.unpack_from("<2sHIIII", data, at)
    other = data.index(DEFAULT_SECURITY) - 24 - 4096
    assert (following, previous, references, size) == (other, other, 2, len(own))


@pytest.mark.parametrize("minor", [3, 5])
@pytest.mark.parametrize("count", [1, 507, 508, 3000])
def test_many_subkeys(minor: int, count: int) -> None:
    root = Key("ROOT", subkeys=tuple(Key(f"Key {number:05}") for number in range(count)))
    data = write_hive(Hive(root=root, minor_version=minor))
    assert [key.name for key in read_hive(data).root.subkeys] == [key.name for key in root.subkeys]
    assert (b"ri" in data) == (count > 507) and (b"lh" in data) == (minor == 5)


REFUSED = {
    "version": (Hive(root=Key("ROOT"), minor_version=2), "format 1.2"),
    "layers of an old version": (Hive(root=Key("ROOT"), layered=True), "cannot have layers"),
    "file name": (Hive(root=Key("ROOT"), file_name="x" * 33), "longer than 32"),
    "long name": (Hive(root=Key("", subkeys=(Key("x" * 256),))), "more than 255"),
    "empty name": (Hive(root=Key("", subkeys=(Key(""),))), "empty name"),
    "backslash": (Hive(root=Key("", subkeys=(Key("A", subkeys=(Key("a\\b"),)),))), "key A\\a\\b has an empty name or"),
    "two keys": (Hive(root=Key("", subkeys=(Key("A"), Key("a")))), "two subkeys of the same name"),
    "two values": (Hive(root=Key("", (Value("É", 3, b""), Value("é", 3, b"")))), "two values of the same name"),
    "value's name": (Hive(root=Key("", (Value("x" * 16384, 3, b""),))), "more than 16383"),
    "class": (Hive(root=Key("", class_name="x" * 0x8000)), "class name that is too long"),
    "layers": (Hive(root=Key("", subkeys=(tombstone("A"),))), "layer semantics"),
    "tombstone": (Hive(root=Key("", (value_tombstone("A"),))), "layer semantics"),
    "full tombstone": (
        Hive(root=Key("", (Value("A", 3, b""),), layering=Layering.TOMBSTONE), minor_version=6, layered=True),
        "is a tombstone and has content",
    ),
    "tombstone with data": (
        Hive(root=Key("", (Value("A", 3, b"1", tombstone=True),)), minor_version=6, layered=True),
        "tombstone with data",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    hive, reason = REFUSED[name]
    with pytest.raises(InvalidRequest) as caught:
        write_hive(hive)
    assert reason in str(caught.value)


def test_deeper_than_windows_allows() -> None:
    key = Key("k")
    for _ in range(MAXIMUM_DEPTH):
        key = Key("k", subkeys=(key,))
    with pytest.raises(InvalidRequest, match="deeper than 512"):
        write_hive(Hive(root=key))
