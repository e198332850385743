"""Hostile layers and hostile registry files: the answer is a registry that Wine could load, or an error that names the place."""

from __future__ import annotations

import os
import random
import time

import pytest

from silo.engine.ports import RegistrySource
from silo.errors import InvalidRequest, NotFound
from silo.windows.hives import Hive, Key, Layering, Value, read_wine_text, write_hive
from silo.windows.hives.tree import FLAG_LINK, tombstone, value_tombstone
from silo.windows.registry import build_user_hive, diff_registry, merge_registry, merge_user_hive
from silo.windows.registry.looking import WindowsRegistry
from tests.fuzz.test_hives import fixture, mutate

ROUNDS = int(os.environ.get("SILO_FUZZ_ROUNDS", "40")) * 20
LINK = "\\Registry\\Machine\\Software\\Many".encode("utf-16-le")
BASE = f"""WINE REGISTRY Version 2
;; All keys relative to REGISTRY\\\\Machine

#arch=win64

[Software\\\\Few 1] 1700000000
#time=1da1747c66d0000
"a"="text"
@=dword:00000001

[Software\\\\Indexed\\\\Many 3] 1700000000
#link
"SymbolicLinkValue"=hex(6):{LINK.hex(",")}

[Software\\\\Deep\\\\Deep\\\\Deep] 1700000000
"bytes"=hex:01,02,\\
  03,04

[System\\\\ControlSet001\\\\Control] 1700000000
"x"=str(2):"%PATH%"

[System\\\\Empty] 1700000000
""".encode()
WORDS = (
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\\\\",
    b"\n",
    b"\\\n",
    b"=hex:",
    b"#link\n",
    b"\\x",
    b"\xc3",
    b"\0",
    b"\n[Software\\\\A]\n",
)


def mutated_text(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data))
        if chance.randrange(3):
            data[at:at] = chance.choice(WORDS)
        else:
            del data[at : at + chance.randrange(60)]
    return bytes(data)


def test_mutated_layers() -> None:
    chance = random.Random(4)
    original = fixture(6)
    failures = 0
    for _ in range(ROUNDS):
        layers = [
            {chance.choice(["Software_Delta", "SYSTEM_DELTA", "sam_delta"]): mutate(bytearray(original), chance)}
            for _ in range(2)
        ]
        try:
            merged = merge_registry({"system.reg": BASE}, layers)
        except InvalidRequest as error:
            assert "of layer " in str(error) and "_Delta" in str(error)
            failures += 1
            continue
        for text in merged.values():
            read_wine_text(text)
            assert diff_registry({"system.reg": text}, {"system.reg": text}) == {}
    assert 0 < failures < ROUNDS


def test_mutated_user_hives() -> None:
    chance = random.Random(5)
    for _ in range(ROUNDS // 4):
        try:
            text = merge_user_hive(BASE, mutate(bytearray(fixture(chance.choice([3, 5, 6]))), chance))
        except InvalidRequest:
            continue
        read_wine_text(text)


def test_mutated_files_of_a_container() -> None:
    chance = random.Random(6)
    failures = 0
    for _ in range(ROUNDS):
        after = mutated_text(bytearray(BASE), chance)
        try:
            layer = diff_registry({"system.reg": BASE}, {"system.reg": after})
            build_user_hive("ContainerUser", BASE, after)
        except InvalidRequest:
            failures += 1
            continue
        image = {"system.reg": BASE} | merge_registry({"system.reg": BASE}, [layer])
        assert diff_registry(image, {"system.reg": after}) == {}, after
    assert 0 < failures < ROUNDS


def test_mutated_files_are_shown_or_refused() -> None:
    chance = random.Random(7)
    viewer = WindowsRegistry()
    for _ in range(ROUNDS // 2):
        source = RegistrySource(files={"system.reg": mutated_text(bytearray(BASE), chance)})
        for key in ("", "HKLM", "HKLM\\Software\\Indexed\\Many 3\\x", "HKLM\\SYSTEM\\CurrentControlSet"):
            try:
                shown = viewer.query(source, key, value=None, recursive=True) + viewer.export(source, key)
            except (InvalidRequest, NotFound):
                continue
            assert not any(character < " " and character != "\n" for character in shown)


def layer(root: Key) -> dict[str, bytes]:
    return {"Software_Delta": write_hive(Hive(root=root, minor_version=6, layered=True))}


def chain(depth: int, leaf: Key) -> Key:
    for _ in range(depth):
        leaf = Key("k", subkeys=(leaf,), inherit_class=True)
    return leaf


@pytest.mark.parametrize(
    "root",
    [
        # a key at every level that is deleted and made again
        Key("", subkeys=tuple(Key(f"k{n}", layering=Layering.SUPERSEDE_TREE) for n in range(20_000))),
        Key("", subkeys=tuple(tombstone(f"Few {n}") for n in range(20_000))),
        chain(500, Key("k", subkeys=tuple(tombstone(f"t{n}") for n in range(2_000)))),
        Key("", tuple(value_tombstone(f"v{n}") for n in range(20_000))),
        # links of a layer's own, to what is below them
        Key("", subkeys=(Key("a", (Value("SymbolicLinkValue", 6, LINK + b"\\\0a\0"),), flags=FLAG_LINK),)),
    ],
    ids=["superseding", "deleting", "deep", "values", "links"],
)
def test_layers_that_are_meant_to_cost(root: Key) -> None:
    many = "".join(f"\n[Software\\\\Few {n}\\\\Sub] 1\n" for n in range(17_000)).encode()
    begin = time.process_time()
    merged = merge_registry({"system.reg": BASE + many}, [layer(root)] * 3)
    assert time.process_time() - begin < 20
    for text in merged.values():
        read_wine_text(text)


def test_files_that_are_meant_to_cost() -> None:
    deep = "".join(f"\n[Software{chr(92) * 2}" + f"{n}{chr(92) * 2}" * 400 + "]\n" for n in range(2_000)).encode()
    begin = time.process_time()
    try:
        diff_registry({"system.reg": BASE}, {"system.reg": BASE + deep})
    except InvalidRequest as error:
        assert "more keys" in str(error)
    assert time.process_time() - begin < 30
