"""Wine's text files say the same as a tree, and come back as Wine wrote them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.windows.hives import (
    DamagedRegistry,
    Hive,
    HiveLimits,
    Key,
    Layering,
    Value,
    WineRegistry,
    read_hive,
    read_wine_text,
    write_hive,
    write_wine_text,
)
from silo.windows.hives.tree import FLAG_LINK, find_key, tombstone, value_tombstone, walk
from tests.support.registry_trees import normalized, trees

HEADER = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n#arch=win64\n"
# The first two are of a file that Wine 8.0 wrote; the others show what else its escapes and its order can do.
WRITTEN = (
    HEADER
    + r"""
[Software\\Classes\\Wow6432Node\\AppId] 1794169200
#time=1dd6fbe8792d800
#link
"SymbolicLinkValue"=hex(6):5c,00,52,00,65,00,67,00,69,00,73,00,74,00,72,00,79,\
  00,5c,00,4d,00,61,00,63,00,68,00,69,00,6e,00,65,00,5c,00,53,00,6f,00,66,00,\
  74,00

[Software\\Microsoft\\Windows NT\\CurrentVersion\\FontLink\\SystemLink] 1794169200
#time=1dd6fbe8792d800
"Lucida Sans Unicode"=str(7):"MSGOTHIC.TTC,MS UI Gothic\0MINGLIU.TTC,PMingLiU\0"

[System\\\[a\]\\aa] 1794169200
#time=1dd6fbe8792d800

[System\\\[a\]\\\x20ac_] 1794169200
#time=1dd6fbe8792d800
#class="A \"class\""

[System\\ControlSet001\\Enum\\{CA085853-16CE-48AA-B114-DE9C72334223}\\0001] 1794169200
#time=1dd6fbe8792d800
@=hex(ffff0008):f2,03,00,00,00,00,00,00
"ComSpec"=str(2):"%SystemRoot%\\system32\\cmd.exe"
"Data"=hex:
"Number"=dword:0000000a
"Quoted"="say \"this\"\r\n\tand \\x41 \x20ac1 \xe9x \1\0011 \xd83d\xde00"
"Unterminated"=hex(1):61,00
"""
)
TIME = 0x1DD6FBE8792D800


def text(root: Key) -> str:
    return write_wine_text(WineRegistry(root, "REGISTRY\\Machine")).decode()


def root_of(blocks: str) -> Key:
    return read_wine_text((HEADER + blocks).encode()).root


def test_what_wine_wrote_comes_back_byte_for_byte() -> None:
    registry = read_wine_text(WRITTEN.encode())
    assert (registry.base_key, registry.architecture) == ("REGISTRY\\Machine", "win64")
    hive = Hive(root=registry.root)
    for root in (registry.root, read_hive(write_hive(hive)).root):
        assert write_wine_text(replace(registry, root=root)).decode() == WRITTEN


def test_what_the_text_says() -> None:
    root = read_wine_text(WRITTEN.encode()).root
    key = find_key(root, "System\\ControlSet001\\Enum\\{CA085853-16CE-48AA-B114-DE9C72334223}\\0001")
    assert key is not None and key.modified == TIME
    quoted = 'say "this"\r\n\tand \\x41 €1 éx \1\x011 \U0001f600\0'
    assert {value.name: (value.type, value.data) for value in key.values} == {
        "": (0xFFFF0008, bytes.fromhex("f203000000000000")),
        "ComSpec": (2, "%SystemRoot%\\system32\\cmd.exe\0".encode("utf-16-le")),
        "Data": (3, b""),
        "Number": (4, b"\x0a\0\0\0"),
        "Quoted": (1, quoted.encode("utf-16-le")),
        "Unterminated": (1, b"a\0"),
    }
    link = find_key(root, "software\\classes\\wow6432node\\appid")
    assert link is not None and link.flags == FLAG_LINK and link.values[0].type == 6
    named = find_key(root, "System\\[a]\\€_")
    assert named is not None and named.class_name == 'A "class"'
    assert root.modified == 0 == root.subkeys[0].modified


def test_what_people_and_older_files_write() -> None:
    root = root_of(
        '[]\r\n"x"="1"\r\n\r\n[A\\\\B] 1700000000\n"u"="é€"\n;comment\n\n[a\\\\b]\n"v"=str:"2"\n#unknown\n"u"="3"\n'
    )
    assert root.values == (Value("x", 1, b"1\0\0\0"),)
    key = find_key(root, "A\\B")
    assert key is not None and key.modified == 116444736000000000 + 1700000000 * 10**7
    assert key.values == (Value("u", 1, b"3\0\0\0"), Value("v", 1, b"2\0\0\0"))
    assert text(Key("", subkeys=(Key("A"),))) == HEADER + "\n[A]\n"


@settings(deadline=None, max_examples=200)
@given(trees(security=False))
def test_round_trip(root: Key) -> None:
    data = text(root)
    back = read_wine_text(data.encode()).root
    assert normalized(back) == normalized(root)
    assert text(back) == data
    times = {path: key.modified for path, key in walk(back)}
    for path, key in walk(root):
        saved = key.values or not key.subkeys or key.class_name or key.flags
        assert times[path.removeprefix("\\")] == (key.modified if saved else 0)


@pytest.mark.parametrize("size", [*range(20, 30), 50, 51])
@pytest.mark.parametrize("name", ["", "n", "name of some length", "n" * 90])
def test_bytes_are_broken_into_lines_that_are_read_again(size: int, name: str) -> None:
    key = Key("K", (Value(name, 3, bytes(range(size))),))
    written = text(Key("", subkeys=(key,)))
    assert root_of(written.removeprefix(HEADER)).subkeys == (key,)
    assert all(len(line) < 82 for line in written.splitlines()[7:])


DAMAGED = {
    "signature": ("REGEDIT4\n", 0, "the first line is not"),
    "empty": ("", 0, "the first line is not"),
    "heading": (HEADER + "\n[A\\", 5, "name of a key does not end"),
    "value": (HEADER + '[A]\n"x\\"="1"\n', 5, "name of a value does not end"),
    "string": (HEADER + '[A]\n"x"="1\n', 5, "data of the value 'x' cannot be read"),
    "number": (HEADER + '[A]\n"x"=dword:xyz\n', 5, "cannot be read"),
    "odd bytes": (HEADER + '[A]\n"x"=hex:0,123\n', 5, "cannot be read"),
    "type": (HEADER + '[A]\n"x"=hex(123456789):\n', 5, "cannot be read"),
    "end": (HEADER + '[A]\n"x"=hex:00,\\\n  01,\\', 5, "ends within a value"),
    "words": (HEADER + "[A]\nwords\n", 5, "neither a key nor a value"),
    "long name": (HEADER + "[" + "x" * 256 + "]\n", 4, "more than 255"),
    "deep": (HEADER + "[" + "x\\\\" * 600 + "]\n", 4, "deeper than 512"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_told_with_its_line(name: str) -> None:
    data, line, reason = DAMAGED[name]
    with pytest.raises(DamagedRegistry) as caught:
        read_wine_text(data.encode())
    assert reason in caught.value.reason
    assert caught.value.reason.startswith(f"line {line + 1}: ")
    assert caught.value.offset == sum(len(text) + 1 for text in data.split("\n")[:line])


def test_limits() -> None:
    with pytest.raises(DamagedRegistry, match="more than 10"):
        read_wine_text(WRITTEN.encode(), limits=HiveLimits(size_bytes=10))
    with pytest.raises(DamagedRegistry, match="more keys and values"):
        read_wine_text(
            (HEADER + "[" + "a\\\\" * 400 + "]\n[" + "b\\\\" * 400 + "]\n").encode(), limits=HiveLimits(cells=700)
        )


@pytest.mark.parametrize(
    "key",
    [
        tombstone("A"),
        Key("A", inherit_class=True),
        Key("A", layering=Layering.SUPERSEDE_TREE),
        Key("A", (value_tombstone("x"),)),
    ],
)
def test_layers_are_not_written(key: Key) -> None:
    with pytest.raises(InvalidRequest, match="merge it before it is written for Wine"):
        text(Key("", subkeys=(key,)))


@settings(max_examples=300)
@given(st.text(alphabet='[]"\\=@#x0123456789abcdef,:\n hextimclasdworstr()', max_size=200))
def test_anything_may_stand_in_a_file(blocks: str) -> None:
    try:
        root = root_of("[A]\n" + blocks)
    except DamagedRegistry:
        return
    assert normalized(root_of(text(root).removeprefix(HEADER))) == normalized(root)


def test_large_files_are_fast() -> None:
    many = "".join(
        f'\n[Software\\\\Classes\\\\Key{number}] 1\n#time=1\n"a"="b"\n"c"=dword:00000001\n' for number in range(17_000)
    )
    long = '\n[Long]\n"x"=hex:' + "00,\\\n  " * 200_000 + "00\n"
    begin = time.process_time()
    root = root_of(many + long)
    text(root)
    assert time.process_time() - begin < 5
    assert len(root.subkeys[0].subkeys[0].subkeys) == 17_000 and len(root.subkeys[1].values[0].data) == 200_001
