"""Files made by another writer say what they were made to say, and every damage is told with its place."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest

from silo.errors import SiloError, http_status
from silo.windows.hives import (
    DamagedRegistry,
    Hive,
    HiveLimits,
    Key,
    Layering,
    Value,
    ValueType,
    read_hive,
    write_hive,
)
from silo.windows.hives.tree import FLAG_LINK, MAXIMUM_DEPTH, find_key, find_value, walk
from tests.support.hives import NOWHERE, TIME, Cell, HiveBuilder, resealed

LISTS = [("lf", 0), ("lh", 0), ("li", 0), ("lf", 2), ("lh", 3), ("li", 1)]


def names(key: Key) -> list[str]:
    return [subkey.name for subkey in key.subkeys]


@pytest.mark.parametrize("minor", [3, 4, 5, 6])
@pytest.mark.parametrize(("lists", "leaf"), LISTS)
def test_every_list_of_subkeys(minor: int, lists: str, leaf: int) -> None:
    builder = HiveBuilder(minor=minor)
    subkeys = [builder.key(name) for name in ("b", "A", "Zebra", "c", "über")]
    hive = read_hive(builder.file(builder.key("ROOT", subkeys=subkeys, lists=lists, leaf=leaf, entry=True)))
    assert names(hive.root) == ["A", "b", "c", "Zebra", "über"]
    assert (hive.minor_version, hive.file_name, hive.modified, hive.layered) == (minor, "\\fixture", TIME, False)


def test_lists_of_different_kinds_in_one() -> None:
    builder = HiveBuilder()
    first, second = (builder.subkey_list([builder.key(name)], kind, 0) for name, kind in (("A", "lh"), ("B", "li")))
    root = builder.key("ROOT", subkeys=[builder.key("C")])
    index = builder.cell(struct.pack("<2sHII", b"ri", 2, first, second))
    builder.patch(root.offset, 20, "<III", 2, 0, index)
    assert names(read_hive(builder.file(root)).root) == ["A", "B"]


def test_what_a_key_has() -> None:
    builder = HiveBuilder()
    key = builder.key(
        "Schlüssel",
        class_name="Klasse é",
        security=builder.security(b"descriptor"),
        flags=FLAG_LINK,
        user_flags=0x21,
        time=5,
    )
    hive = read_hive(builder.file(builder.key("", subkeys=[key], entry=True)))
    assert hive.root.subkeys == (
        Key("Schlüssel", (), (), 5, "Klasse é", b"descriptor", FLAG_LINK, 0x21, Layering.MERGE, False),
    )


def test_utf16_names() -> None:
    builder = HiveBuilder()
    values = [builder.value("Plain", 3, b"12345", utf16=True), builder.value("\ud83d half", 3, b"")]
    subkeys = [builder.key("Plain", utf16=True), builder.key("Привет"), builder.key("\U0001f600")]
    root = read_hive(builder.file(builder.key("ROOT", subkeys=subkeys, values=values, utf16=True))).root
    assert names(root) == ["Plain", "Привет", "\U0001f600"] and root.name == "ROOT"
    assert [value.name for value in root.values] == ["Plain", "\ud83d half"]


@pytest.mark.parametrize("minor", [3, 5])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 16344, 16345, 16348, 2 * 16344, 2 * 16344 + 1, 100_000])
def test_data_of_any_size(minor: int, size: int) -> None:
    data = bytes(number * 7 % 251 for number in range(size))
    builder = HiveBuilder(minor=minor)
    values = [builder.value("", 3, data), builder.value("apart", 3, data, within=False)]
    root = read_hive(builder.file(builder.key("ROOT", values=values))).root
    assert root.values == (Value("", 3, data), Value("apart", 3, data))


def test_types_that_have_no_name_are_kept() -> None:
    builder = HiveBuilder()
    root = read_hive(builder.file(builder.key("ROOT", values=[builder.value("x", 0xFFFF0012, b"12")]))).root
    assert find_value(root, "X") == Value("x", 0xFFFF0012, b"12")


def test_a_predefined_handle_is_no_number_of_values() -> None:
    builder = HiveBuilder()
    root = builder.key("ROOT", flags=0x40)
    builder.patch(root.offset, 36, "<I", 0x80000003)
    assert read_hive(builder.file(root)).root.values == ()


def test_orphans_free_cells_and_padding_are_passed_over() -> None:
    builder = HiveBuilder()
    builder.orphan()
    builder.cell(b"vk free", allocated=False)
    root = builder.key("ROOT", subkeys=[builder.key("A")])
    builder.orphan(b"\0" * 5000)
    assert names(read_hive(builder.file(root, padding=12345)).root) == ["A"]


@pytest.mark.parametrize("layers", range(4))
def test_layers_count_only_where_the_file_says_so(layers: int) -> None:
    def root(minor: int, layered: bool) -> Key:
        builder = HiveBuilder(minor=minor)
        values = [builder.tombstone_value("gone"), builder.value("here", 1, b"")]
        key = builder.key("ROOT", values=values, layers=layers | 0x80)
        return read_hive(builder.file(key, layered=layered)).root

    key = root(6, True)
    assert (key.layering, key.inherit_class) == (Layering(layers), True)
    assert key.values == (Value("gone", ValueType.NONE, b"", tombstone=True), Value("here", 1, b""))
    for older in (root(5, True), root(6, False)):
        assert (older.layering, older.inherit_class) == (Layering.MERGE, False)
        assert not any(value.tombstone for value in older.values)


def test_a_dirty_hive_is_refused_unless_allowed() -> None:
    builder = HiveBuilder()
    data = builder.file(builder.key("ROOT"), sequence=(8, 7))
    with pytest.raises(DamagedRegistry, match=r"dirty: write 8 began, 7 is the last that finished.*transaction log"):
        read_hive(data)
    assert read_hive(data, allow_dirty=True).root.name == "ROOT"


def simple() -> tuple[HiveBuilder, Cell]:
    builder = HiveBuilder()
    value = builder.value("value", 3, b"0123456789")
    key = builder.key("A", values=[value], class_name="Class", security=builder.security(b"descriptor"))
    return builder, builder.key("ROOT", subkeys=[key, builder.key("B")])


def changed(offset: int, form: str, *numbers: object) -> bytes:
    builder, root = simple()
    data = bytearray(builder.file(root))
    struct.pack_into(form, data, offset, *numbers)
    return resealed(data)


BASE_BLOCKS: list[tuple[str, Callable[[], bytes], str, int]] = [
    ("empty", lambda: b"", "too short", 0),
    ("cut", lambda: changed(0, "<4s", b"regf")[:5000], "too short", 0),
    ("signature", lambda: changed(0, "<4s", b"REGF"), "signature regf", 0),
    ("checksum", lambda: simple()[0].file(4096, checksum=5), "checksum is 00000005, should be", 508),
    ("major", lambda: changed(20, "<I", 2), "format 2.5", 20),
    ("minor", lambda: changed(24, "<I", 2), "format 1.2", 20),
    ("log", lambda: changed(28, "<I", 6), "transaction log", 28),
    ("form", lambda: changed(32, "<I", 0), "transaction log", 28),
    ("size", lambda: changed(40, "<I", 0x7FFFF000), "bins of", 40),
    ("no bins", lambda: changed(40, "<I", 0), "bins of", 40),
    ("odd size", lambda: changed(40, "<I", 4097), "bins of", 40),
    ("bin", lambda: changed(4096, "<4s", b"HBIN"), "no bin begins", 4096),
    ("bin's offset", lambda: changed(4100, "<I", 4096), "no bin begins", 4096),
    ("bin's size", lambda: changed(4104, "<I", 0), "a bin of 0", 4096),
    ("bin's odd size", lambda: changed(4104, "<I", 4095), "a bin of 4095", 4096),
    ("large bin", lambda: changed(4104, "<I", 1 << 30), "a bin of", 4096),
    ("cell of nothing", lambda: changed(4128, "<i", 0), "a cell of 0", 4128),
    ("cell of an odd size", lambda: changed(4128, "<i", -20), "a cell of 20", 4128),
    ("large cell", lambda: changed(4128, "<i", -(1 << 20)), "a cell of", 4128),
    ("largest cell", lambda: changed(4128, "<i", -(1 << 31)), "a cell of", 4128),
    ("root", lambda: changed(36, "<I", NOWHERE), "no cell for a key", 4096),
    ("root between", lambda: changed(36, "<I", 40), "no cell for a key", 4096),
    ("root is no key", lambda: changed(36, "<I", 32), "no key", 4128),
]


@pytest.mark.parametrize(
    ("make", "reason", "offset"), [case[1:] for case in BASE_BLOCKS], ids=[c[0] for c in BASE_BLOCKS]
)
def test_damage_of_the_file_is_told_with_its_place(make: Callable[[], bytes], reason: str, offset: int) -> None:
    with pytest.raises(DamagedRegistry) as caught:
        read_hive(make())
    assert reason in caught.value.reason and caught.value.offset == offset
    assert f"at offset 0x{offset:x}" in str(caught.value) and http_status(caught.value) == 400


# field of the root or of its subkey A (which has all) → its place in the key's content and a wrong number
KEYS: list[tuple[str, str, int, str, int, str]] = [
    ("count of subkeys", "ROOT", 20, "<I", 3, "a list of 2 subkeys for a key that has 3"),
    ("list of subkeys", "ROOT", 28, "<I", 33, "no cell for a list of subkeys"),
    ("list is the key", "ROOT", 28, "<I", -1, "used twice, or in a circle"),
    ("name", "A", 72, "<H", 400, "name of 400 bytes"),
    ("no name", "A", 72, "<H", 0, "cannot have the name ''"),
    ("name with a backslash", "A", 76, "<B", 0x5C, "cannot have the name"),
    ("two of one name", "A", 76, "<B", 0x62, "two subkeys have the same name"),
    ("half a character", "A", 2, "<H", 0, "half a character"),
    ("class", "A", 74, "<H", 40, "class name of 40 bytes"),
    ("class is the key", "A", 48, "<I", -1, "used twice, or in a circle"),
    ("security", "A", 44, "<I", 0x100000, "no cell for a security descriptor"),
    ("security is the key", "A", 44, "<I", -1, "no security descriptor"),
    ("count of values", "A", 36, "<I", 0x3FFFFFFF, "values do not fit"),
    ("values", "A", 40, "<I", 0xFFFFFFF8, "no cell for a list of values"),
    ("signature", "A", 0, "<H", 0x6B76, "no key (nk)"),
]


@pytest.mark.parametrize(
    ("which", "at", "form", "number", "reason"), [case[1:] for case in KEYS], ids=[c[0] for c in KEYS]
)
def test_damage_of_a_key_is_told(which: str, at: int, form: str, number: int, reason: str) -> None:
    builder = HiveBuilder()
    value = builder.value("value", 3, b"0123456789")
    key = builder.key("A", values=[value], class_name="Class", security=builder.security(b"descriptor"))
    root = builder.key("ROOT", subkeys=[key, builder.key("B")])
    offset = root.offset if which == "ROOT" else key.offset
    builder.patch(offset, at, form, offset if number == -1 else number)
    with pytest.raises(DamagedRegistry) as caught:
        read_hive(builder.file(root))
    assert reason in caught.value.reason
    assert 4096 <= caught.value.offset < 4096 + len(builder.bins)


def read_values(*values: int, builder: HiveBuilder) -> tuple[Value, ...]:
    return read_hive(builder.file(builder.key("ROOT", values=values))).root.values


def test_damage_of_a_value_is_told() -> None:
    def refused(make: Callable[[HiveBuilder], int], reason: str) -> None:
        builder = HiveBuilder()
        with pytest.raises(DamagedRegistry) as caught:
            read_values(make(builder), builder=builder)
        assert reason in caught.value.reason

    def big(builder: HiveBuilder, count: int, table: list[int] | None = None, signature: bytes = b"db") -> int:
        entries = [builder.cell(bytes(16344)) for _ in range(2)] if table is None else table
        at = builder.cell(struct.pack(f"<{len(entries)}I", *entries))
        cell = builder.cell(struct.pack("<2sHI", signature, count, at))
        return builder.raw_value("big", 3, 16344 + 9, struct.pack("<I", cell))

    place = struct.pack("<I", 0x40)
    refused(lambda builder: builder.raw_value("x", 3, 0x80000005, place), "data of 5 bytes where 4 fit")
    refused(lambda builder: builder.raw_value("x", 3, 5, struct.pack("<I", NOWHERE)), "no cell for a data")
    refused(
        lambda builder: builder.raw_value("x", 3, 500, struct.pack("<I", builder.cell(b"short"))), "data of 500 bytes"
    )
    refused(
        lambda builder: builder.raw_value("x", 3, 0x7FFFFFFF, struct.pack("<I", builder.cell(b"s"))),
        "data of 2147483647",
    )
    refused(lambda builder: builder.cell(b"vK" + bytes(18)), "no value (vk)")
    refused(lambda builder: builder.cell(b"vk"), "no value (vk)")
    refused(lambda builder: builder.cell(struct.pack("<2sHI4sIHH", b"vk", 90, 0, place, 3, 1, 0)), "name of 90 bytes")
    refused(lambda builder: big(builder, 3), "in segments (db)")
    refused(lambda builder: big(builder, 2, signature=b"DB"), "in segments (db)")
    refused(lambda builder: big(builder, 2, table=[40, 40]), "no cell for a segment")
    refused(lambda builder: big(builder, 2, table=[builder.cell(bytes(16344))] * 2), "the segment at")
    refused(
        lambda builder: big(builder, 2, table=[builder.cell(bytes(99)), builder.cell(bytes(99))]),
        "where 16344 should be",
    )


def test_two_values_of_one_name_or_one_place() -> None:
    builder = HiveBuilder()
    with pytest.raises(DamagedRegistry, match="two values have the same name"):
        read_values(builder.value("Name", 3, b"1"), builder.value("nAME", 3, b"2"), builder=builder)
    builder = HiveBuilder()
    value = builder.value("Name", 3, b"1")
    with pytest.raises(DamagedRegistry, match=r"the value at 0x[0-9a-f]+ is used twice"):
        read_values(value, value, builder=builder)


def test_circles_of_keys_end() -> None:
    builder = HiveBuilder()
    deep = builder.key("Deep", subkeys=[builder.key("Deeper")])
    root = builder.key("ROOT", subkeys=[deep])
    leaf = builder.cell(struct.pack("<2sHI", b"li", 1, root.offset))
    builder.patch(deep.offset, 28, "<I", leaf)
    with pytest.raises(DamagedRegistry, match="used twice, or in a circle"):
        read_hive(builder.file(root))


def test_lists_of_lists_of_lists_do_not_exist() -> None:
    builder = HiveBuilder()
    root = builder.key("ROOT", subkeys=[builder.key("A")])
    inner = builder.cell(struct.pack("<2sHI", b"ri", 1, 0))
    builder.patch(root.offset, 28, "<I", builder.cell(struct.pack("<2sHI", b"ri", 1, inner)))
    with pytest.raises(DamagedRegistry, match="no list of subkeys"):
        read_hive(builder.file(root))


def nested(levels: int) -> bytes:
    builder = HiveBuilder()
    key = builder.key("k")
    for _ in range(levels - 1):
        key = builder.key("k", subkeys=[key])
    return builder.file(key)


def test_as_deep_as_windows_allows_and_no_deeper() -> None:
    root = read_hive(nested(MAXIMUM_DEPTH)).root
    assert sum(1 for _ in walk(root)) == MAXIMUM_DEPTH
    assert find_key(root, "K\\k") is not None
    assert read_hive(write_hive(Hive(root=root))).root.subkeys[0].name == "k"
    with pytest.raises(DamagedRegistry, match="deeper than 512 levels"):
        read_hive(nested(MAXIMUM_DEPTH + 1))


def test_limits() -> None:
    builder, root = simple()
    data = builder.file(root)
    with pytest.raises(DamagedRegistry, match="more than 8191"):
        read_hive(data, limits=HiveLimits(size_bytes=8191))
    with pytest.raises(DamagedRegistry, match="more cells than are allowed"):
        read_hive(data, limits=HiveLimits(cells=5))


def test_what_names_much_takes_little() -> None:
    builder = HiveBuilder()
    value = builder.value("x", 3, bytes(60_000))
    key = builder.key("ROOT", values=[value] * 16_000)
    data = builder.file(key)
    tracemalloc.start()
    with pytest.raises(SiloError):
        read_hive(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * len(data)


def test_seventeen_thousand_keys_are_read_in_well_under_a_second() -> None:
    def key(number: int, below: int) -> Key:
        values = (Value("", 1, "some text\0".encode("utf-16-le")), Value("Number", 4, bytes(4)))
        return Key(f"Key {number}", values, tuple(Key(f"Sub {index}", values[:1]) for index in range(below)))

    data = write_hive(Hive(root=Key("ROOT", subkeys=tuple(key(number, 16) for number in range(1000)))))
    begin = time.process_time()
    root = read_hive(data).root
    took = time.process_time() - begin
    assert sum(1 for _ in walk(root)) == 17_001
    assert took < 1.5
