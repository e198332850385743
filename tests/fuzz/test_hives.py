"""Mutated hives and registry texts: the answer is a tree that can be written again, or an error that names the place."""

from __future__ import annotations

import os
import random
import struct

import pytest

from silo.windows.hives import (
    DamagedRegistry,
    Hive,
    Key,
    Value,
    WineRegistry,
    merge_trees,
    read_hive,
    read_wine_text,
    write_hive,
    write_wine_text,
)
from silo.windows.hives.tree import tombstone, value_tombstone, walk
from tests.support.hives import HiveBuilder, resealed

ROUNDS = int(os.environ.get("SILO_FUZZ_ROUNDS", "40")) * 20
NUMBERS = (0, 1, 4, 0x20, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0x80000004, 0xFFFFFFF8, 0xFFFFFFFF)
WORDS = (b"nk", b"vk", b"sk", b"lf", b"lh", b"li", b"ri", b"db", b"hbin", b"\\", b"\0\0", b"\xff\xff")


def fixture(minor: int) -> bytes:
    """Every kind of cell."""
    builder = HiveBuilder(minor=minor)
    security = builder.security(b"\1\0\4\x80 descriptor")
    values = [
        builder.value("", 1, "text\0".encode("utf-16-le")),
        builder.value("Within", 4, b"1234"),
        builder.value("Имя", 3, bytes(40_000)),
        builder.value("Plain", 3, b"utf-16 name", utf16=True),
        builder.tombstone_value("Gone"),
    ]
    few = [builder.key(f"Few {number}", security=security, class_name="Class") for number in range(3)]
    leaves = [
        builder.key("Hashes", subkeys=few, lists="lh"),
        builder.key("Offsets", subkeys=[builder.key("x")], lists="li"),
    ]
    many = [builder.key(f"Many {number}", layers=number % 4, security=security) for number in range(9)]
    deep = builder.key("Deep")
    for _ in range(20):
        deep = builder.key("Deep", subkeys=[deep])
    subkeys = [*leaves, builder.key("Indexed", subkeys=many, leaf=2, values=values), deep]
    return builder.file(builder.key("ROOT", subkeys=subkeys, security=security, entry=True), layered=minor > 5)


def library(minor: int) -> bytes:
    values = (Value("a", 1, b"a\0\0\0"), Value("b", 3, bytes(9)), value_tombstone("gone"))
    subkeys = tuple(Key(f"Key {number}", values, (Key("Sub"), tombstone("T")), class_name="C") for number in range(30))
    root = Key("ROOT", (Value("big", 3, bytes(20_000)),), subkeys)
    return write_hive(Hive(root=root if minor > 5 else merge_trees(root), minor_version=minor, layered=minor > 5))


def mutate(data: bytearray, chance: random.Random) -> bytes:
    # mostly where cells are dense: the first bins
    reach = min(len(data), chance.choice([4096, 4096 + 3 * 4096, len(data)]))
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(reach) // 4 * 4
        kind = chance.randrange(6)
        if kind == 0:
            data[at + chance.randrange(4)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            struct.pack_into("<I", data, at, chance.choice(NUMBERS))
        elif kind == 2:
            # an offset of something that exists
            data[at : at + 4] = struct.pack("<I", chance.randrange(len(data)) // 8 * 8)
        elif kind == 3:
            word = chance.choice(WORDS)
            data[at : at + len(word)] = word
        elif kind == 4:
            other = chance.randrange(reach) // 8 * 8
            data[at : at + 64] = data[other : other + 64].ljust(64, b"\0")
        else:
            number = struct.unpack_from("<i", data, at)[0]
            struct.pack_into(
                "<i", data, at, max(-(1 << 31), min((1 << 31) - 1, number + chance.choice([-8, -1, 1, 8])))
            )
    if chance.random() < 0.05:
        del data[chance.randrange(len(data)) :]
    return resealed(data.ljust(512, b"\0")) if chance.random() < 0.98 else bytes(data)


@pytest.mark.parametrize("make", [fixture, library])
@pytest.mark.parametrize("minor", [3, 6])
def test_mutated_hives(make: object, minor: int) -> None:
    assert callable(make)
    chance = random.Random(minor)
    original: bytes = make(minor)
    read_hive(original)
    failures = 0
    for _ in range(ROUNDS):
        data = mutate(bytearray(original), chance)
        try:
            hive = read_hive(data, allow_dirty=True)
        except DamagedRegistry as error:
            assert 0 <= error.offset <= max(len(data), 512) and error.reason
            failures += 1
            continue
        check_tree(hive)
    assert 0 < failures < ROUNDS


def check_tree(hive: Hive) -> None:
    again = read_hive(write_plain(merge_trees(hive.root)))
    assert sum(1 for _ in walk(again.root)) == sum(1 for _ in walk(merge_trees(hive.root)))
    text = write_wine_text(WineRegistry(again.root, "REGISTRY\\Machine"))
    assert write_wine_text(read_wine_text(text)) == text


def write_plain(root: Key) -> bytes:
    return write_hive(Hive(root=root, minor_version=5))


def test_mutated_texts() -> None:
    chance = random.Random(7)
    registry = WineRegistry(merge_trees(read_hive(fixture(6)).root), "REGISTRY\\Machine")
    original = write_wine_text(registry)
    words = [
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\\\",
        b"\n",
        b"\\\n",
        b"=hex:",
        b"=dword:",
        b"str(7):",
        b"#time=",
        b"\\x",
        b"\xc3",
        b"00,",
    ]
    failures = 0
    for _ in range(ROUNDS):
        data = bytearray(original[: chance.choice([400, 2000, len(original)])])
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            if chance.randrange(3):
                data[at:at] = chance.choice(words)
            else:
                del data[at : at + chance.randrange(60)]
        try:
            text = write_wine_text(read_wine_text(bytes(data)))
        except DamagedRegistry as error:
            assert 0 <= error.offset <= len(data)
            failures += 1
            continue
        assert write_wine_text(read_wine_text(text)) == text
    assert 0 < failures < ROUNDS
