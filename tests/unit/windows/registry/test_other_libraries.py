"""libhivex reads the hives of our layers, and what it writes is a layer for us (regipy reads a whole user hive: test_profiles)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from silo.windows.hives import Hive, Key, Value, read_wine_text, write_hive
from silo.windows.hives.tree import find_key
from silo.windows.registry import diff_registry, merge_registry
from tests.support.registry_trees import as_document, running_hivex

ASK = Callable[..., dict[str, Any]]
BASE = b'WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n[Software\\\\App] 1\n"kept"="1"\n'


@pytest.fixture(scope="module")
def hivex() -> Iterator[ASK]:
    with running_hivex() as ask:
        yield ask


def test_libhivex_reads_the_hives_of_a_layer(tmp_path: Path, hivex: ASK) -> None:
    after = (
        BASE
        + b'"new"=str(2):"%TEMP%"\n\n[Software\\\\\\x418\\x438] 1\n@=dword:00000005\n"many"=hex(7):61,00,00,00,00,00\n'
    )
    (data,) = diff_registry({"system.reg": BASE}, {"system.reg": after}).values()
    path = tmp_path / "Software_Delta"
    path.write_bytes(data)
    root = hivex(dump=str(path))
    assert {key["name"]: sorted(key["values"]) for key in root["subkeys"]} == {
        "App": [["new", 2, "%TEMP%\0".encode("utf-16-le").hex()]],
        "Ии": [["", 4, "05000000"], ["many", 7, "610000000000"]],
    }


def test_what_libhivex_writes_is_a_layer(tmp_path: Path, hivex: ASK) -> None:
    values = (Value("new", 1, "é\0".encode("utf-16-le")), Value("", 11, b"12345678"), Value("large", 3, bytes(20_000)))
    tree = Key("ROOT", subkeys=(Key("app", values, (Key("Sub"),)),))
    start, built = tmp_path / "start", tmp_path / "built"
    start.write_bytes(write_hive(Hive(root=Key("ROOT", modified=1))))
    hivex(**{"from": str(start), "build": str(built), "tree": as_document(tree)})
    merged = merge_registry({"system.reg": BASE}, [{"Software_Delta": built.read_bytes()}])["system.reg"]
    app = find_key(read_wine_text(merged).root, "Software\\App")
    assert app is not None and {*values, Value("kept", 1, b"1\0\0\0")} == set(app.values)
    assert [key.name for key in app.subkeys] == ["Sub"]
