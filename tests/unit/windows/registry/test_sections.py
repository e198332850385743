"""The blocks of a file are found without parsing it, however its keys are written."""

from __future__ import annotations

import pytest

from silo.windows.hives import DamagedRegistry, Key, Value
from silo.windows.hives.tree import find_key, walk
from silo.windows.registry import diff_registry, merge_registry
from silo.windows.registry.sections import EMPTY, LIMITS, RegistrySections, with_parents
from tests.unit.windows.registry.test_merging_and_comparing import chain, hive

HEADER = "WINE REGISTRY Version 2\n"


def sections(text: str) -> RegistrySections:
    return RegistrySections((HEADER + text).encode("latin-1"))


def test_blocks_by_folded_path() -> None:
    found = sections('\n[A\\\\b] 1\n#time=1\n"x"="[no key]"\n\n[\\xe9\\x20ac\\\\[c\\]] 1\n\n[a] 1')
    assert found.paths == ["A", "A\\B", "É€\\[C]"]
    assert found.body("A\\B") == '"x"="[no key]"' and found.body("A") == "" and found.body("B") is None
    assert found.heading("É€") == "\\xe9\\x20ac" and found.heading("B") is None and list(found.below("A")) == ["A\\B"]


def test_keys_that_wine_would_write_otherwise() -> None:
    text = '\n[\\x41\\\\\\\\b\\\\] 1\n"x"="1"\n\n[A\\\\\\x42] 1\n"y"="2"\n'
    found = sections(text)
    assert found.paths == ["A\\B"] and len(found.places["A\\B"]) == 2
    # twice the same key: both blocks are its own, and one is left when it changes
    key = find_key(found.read(["A\\B"]), "a\\b")
    assert key is not None and {value.name for value in key.values} == {"x", "y"}
    base = {"userdef.reg": (HEADER + text).encode()}
    merged = merge_registry(base, [{"DefaultUser_Delta": hive(chain("A\\B", Key("", (Value("z", 3, b"1"),))))}])
    assert merged["userdef.reg"].count(b"[") == 1
    assert {name: len(key.values) for name, key in walk(RegistrySections(merged["userdef.reg"]).read(["A\\B"]))} == {
        "": 0,
        "A": 0,
        "A\\b": 3,
    }


def test_a_parent_that_only_its_odd_subkeys_name_exists() -> None:
    before = {"userdef.reg": (HEADER + '\n[A\\\\] 1\n"v"="1"\n\n[\\x41\\\\\\\\B] 1\n"x"="1"\n').encode()}
    after = {"userdef.reg": before["userdef.reg"].replace(b'[A\\\\] 1\n"v"="1"\n\n', b"")}
    (delta,) = diff_registry(before, after).values()
    merged = merge_registry(before, [{"DefaultUser_Delta": delta}])["userdef.reg"]
    assert diff_registry({"userdef.reg": merged}, after) == {}
    assert RegistrySections(merged).body("A\\B") == '"x"="1"'


def test_line_ends_and_bytes_that_are_no_text_go_through() -> None:
    base = HEADER.encode() + b'\r\n[A] 1\r\n#time=1\r\n"x"="\xff\xfe"\r\n\r\n[B] 1\r\n"y"="1"\r\n'
    layer = {"DefaultUser_Delta": hive(chain("B", Key("", (Value("z", 3, b"1"),))))}
    merged = merge_registry({"userdef.reg": base}, [layer])["userdef.reg"]
    assert merged.startswith(base[: base.index(b"[B]")]) and b'"z"=hex:31' in merged


def test_empty_and_wrong_files() -> None:
    assert RegistrySections(EMPTY).paths == [] and RegistrySections(EMPTY).read([""]).subkeys == ()
    for data in (b"", b"REGEDIT4\n"):
        with pytest.raises(DamagedRegistry, match="the first line"):
            RegistrySections(data)
    with pytest.raises(DamagedRegistry, match="more than 67108864"):
        RegistrySections(HEADER.encode() + bytes(LIMITS.size_bytes))


def test_parents_are_bounded() -> None:
    assert with_parents(["A\\B\\C", "A\\D"]) == {"A\\B\\C", "A\\B", "A", "A\\D", ""}
    paths = (f"{number}" + "\\x" * 500 for number in range(2_000))
    with pytest.raises(DamagedRegistry, match="more keys than are allowed"):
        with_parents(paths)
