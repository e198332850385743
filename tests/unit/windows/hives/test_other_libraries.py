"""libhivex and regipy read what the library writes, and the library reads what libhivex and the fixtures' writer write, alike."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from regipy.registry import NKRecord, RegistryHive

from silo.windows.hives import Hive, Key, Value, read_hive, write_hive
from silo.windows.hives.tree import walk
from silo.windows.hives.writing import DEFAULT_SECURITY
from tests.support.hives import HiveBuilder
from tests.support.registry_trees import PLAIN_NAMES, as_document, running_hivex, trees

# libhivex gives names as UTF-8 up to their first NUL, so halves of pairs and NULs are left to our own round trips
NAMES = PLAIN_NAMES.filter(lambda name: "\0" not in name)
ASK = Callable[..., dict[str, Any]]
PER_EXAMPLE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def hivex() -> Iterator[ASK]:
    with running_hivex() as ask:
        yield ask


def on_disk(folder: Path, data: bytes) -> str:
    path = folder / "a.hiv"
    path.write_bytes(data)
    return str(path)


@PER_EXAMPLE
@given(trees(names=NAMES))
@pytest.mark.parametrize("minor", [3, 5])
def test_libhivex_reads_what_we_write(tmp_path: Path, hivex: ASK, minor: int, root: Key) -> None:
    data = write_hive(Hive(root=root, minor_version=minor))
    assert hivex(dump=on_disk(tmp_path, data)) == as_document(read_hive(data).root)


@PER_EXAMPLE
@given(trees(names=NAMES, classes=False))
def test_we_read_what_libhivex_writes(tmp_path: Path, hivex: ASK, root: Key) -> None:
    start = on_disk(tmp_path, write_hive(Hive(root=Key("ROOT", modified=1))))
    built = tmp_path / "built.hiv"
    hivex(**{"from": start, "build": str(built), "tree": as_document(root)})
    back = read_hive(built.read_bytes()).root
    assert as_document(back) == hivex(dump=str(built))
    assert contents(back, "ROOT") == contents(root, "ROOT")
    # it edits files of ours, and ours of its files are files for it again
    again = on_disk(tmp_path, write_hive(Hive(root=back)))
    assert contents(read_hive(Path(again).read_bytes()).root, "") == contents(back, "")
    assert hivex(dump=again) == as_document(read_hive(Path(again).read_bytes()).root)


def contents(root: Key, name: str) -> dict[str, set[tuple[str, int, bytes]]]:
    """Path → values, in no order."""
    return {
        path: {(value.name, value.type, value.data) for value in key.values} for path, key in walk(root, name) if path
    }


@pytest.mark.parametrize("lists", ["lf", "lh", "li"])
@pytest.mark.parametrize("leaf", [0, 3])
def test_all_three_read_the_fixtures_alike(tmp_path: Path, hivex: ASK, lists: str, leaf: int) -> None:
    builder = HiveBuilder()
    # regipy looks for the root in the first cell
    place = builder.cell(bytes(76 + 4))
    security = builder.security(DEFAULT_SECURITY)
    values = [builder.value("", 1, "text\0".encode("utf-16-le")), builder.value("Bytes", 3, bytes(20_000))]
    subkeys = [builder.key(f"Key {number}", security=security) for number in range(10)]
    subkeys.append(builder.key("Имя", values=values, security=security, class_name="Class"))
    root = builder.key("ROOT", subkeys=subkeys, lists=lists, leaf=leaf, security=security, entry=True)
    builder.orphan()
    builder.bins[place : place + 84] = builder.bins[root.offset : root.offset + 84]
    for subkey in subkeys:
        builder.patch(subkey.offset, 16, "<I", place)
    path = on_disk(tmp_path, builder.file(place, name="fixture"))
    ours = read_hive(Path(path).read_bytes()).root
    assert hivex(dump=path) == as_document(ours)
    assert of_regipy(RegistryHive(path).root) == as_regipy(ours)


def test_regipy_reads_what_we_write(tmp_path: Path) -> None:
    values = (
        Value("", 1, "default\0".encode("utf-16-le")),
        Value("Expanded", 2, "%SystemRoot%\\x\0".encode("utf-16-le")),
        Value("Bytes", 3, bytes(range(200))),
        Value("Few", 3, b"ab"),
        Value("Many", 3, bytes(number % 251 for number in range(50_000))),
        Value("Number", 4, struct.pack("<I", 0xFFFFFFFE)),
        Value("Large number", 11, struct.pack("<Q", 1 << 40)),
        Value("Strings", 7, "one\0two\0\0".encode("utf-16-le")),
        Value("Имя", 1, "Значение\0".encode("utf-16-le")),
    )
    many = tuple(Key(f"Key {number:04}", values[:3]) for number in range(1200))
    root = Key(
        "ROOT", values, (*many, Key("Имя", class_name="Класс", subkeys=(Key("Deeper", values),))), modified=10**17
    )
    for minor in (3, 4, 5, 6):
        data = write_hive(Hive(root=root, minor_version=minor, file_name="SOFTWARE"))
        hive = RegistryHive(on_disk(tmp_path, data))
        # it looks for segments in every large value, though 1.3 has none
        assert of_regipy(hive.root) == as_regipy(read_hive(data).root)
        assert hive.root.get_subkey("Имя").get_class_name() == "Класс"
        security = hive.root.get_security_key_info()
        assert (security["owner"], security["group"]) == ("S-1-5-32-544", "S-1-5-18")
        assert [entry["sid"] for entry in security["dacl"]] == ["S-1-5-32-544", "S-1-5-18", "S-1-5-32-545"]


def of_regipy(record: NKRecord) -> tuple[Any, ...]:
    values = [(value.name, value.value) for value in record.get_values(trim_values=False)]
    return record.name, record.header.last_modified, values, [of_regipy(subkey) for subkey in record.iter_subkeys()]


def as_regipy(key: Key) -> tuple[Any, ...]:
    values = [(value.name or "(default)", _meaning(value)) for value in key.values]
    return key.name, key.modified, values, [as_regipy(subkey) for subkey in key.subkeys]


def _meaning(value: Value) -> object:
    if value.type in (4, 11):
        return int.from_bytes(value.data, "little")
    if value.type == 3:
        return value.data
    text = value.data.decode("utf-16-le")
    return text.rstrip("\0").split("\0") if value.type == 7 else text.rstrip("\0")
