"""Registry text survives reading and writing; edits touch what they name and nothing else."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.windows.base.prefix import apply_edit, capitalised_profiles
from silo.windows.base.recipe import DeleteInterfaces, DeleteTree, DeleteValue, SetValue
from silo.windows.base.registry_text import RegistryText, dword, quoted

TEXT = rb"""WINE REGISTRY Version 2
;; All keys relative to REGISTRY\\Machine

#arch=win64

[Software\\Classes\\Interface\\{AAAA}] 1700000001
#time=1da1700000000001
@="IThing"

[Software\\Classes\\Interface\\{AAAA}\\ProxyStubClsid32] 1700000001
@="{1}"

[Software\\Classes\\Interface\\{AAAA}\\TypeLib] 1700000001
@="{LIB}"

[Software\\Classes\\Interface\\{BBBB}\\TypeLib] 1700000001
@="{OTHER}"

[Software\\Wine] 1700000002
#time=1da1700000000002
#link
"Hex"=hex:01,02,\
  03,04
"Path"="C:\\users\\me"
"Start"=dword:00000002
"With \"quotes\""="x"

[Software\\Wine\\Below] 1700000002

[Software\\Wine2] 1700000002
"C:\\users\\key"=str(2):"C:\\users"
"""


def parsed() -> RegistryText:
    return RegistryText.parse(TEXT)


def test_round_trip_is_exact() -> None:
    assert parsed().render() == TEXT


def test_a_value_is_replaced_in_place_and_without_case() -> None:
    registry = parsed()
    apply_edit(registry, SetValue("system.reg", "software\\wine", "START", dword(3), "r"))
    expected = TEXT.replace(b'"Start"=dword:00000002', b'"START"=dword:00000003')
    assert registry.render() == expected


def test_a_new_key_and_default_value_are_added() -> None:
    registry = parsed()
    apply_edit(registry, SetValue("system.reg", "Software\\New", "", quoted('say "a\\b"'), "r"))
    assert registry.render() == TEXT + b'\n[Software\\\\New] 0\n@="say \\"a\\\\b\\""\n'


def test_values_and_trees_are_deleted() -> None:
    registry = parsed()
    apply_edit(registry, DeleteValue("system.reg", "Software\\Wine", "Hex", "r"))
    apply_edit(registry, DeleteValue("system.reg", "Software\\Wine", "absent", "r"))
    assert b"03,04" not in registry.render()
    apply_edit(registry, DeleteTree("system.reg", "Software\\Wine", "r"))
    names = [key.name for key in registry.keys]
    assert "Software\\\\Wine" not in names
    assert "Software\\\\Wine\\\\Below" not in names
    assert "Software\\\\Wine2" in names


def test_interfaces_of_a_type_library_go_with_all_their_keys() -> None:
    registry = parsed()
    apply_edit(registry, DeleteInterfaces("system.reg", "{lib}", "r"))
    names = [key.name for key in registry.keys if "Interface" in key.name]
    assert names == ["Software\\\\Classes\\\\Interface\\\\{BBBB}\\\\TypeLib"]


def test_times_become_one() -> None:
    registry = parsed()
    registry.fix_times(1_700_000_000)
    text = registry.render()
    assert b"] 1700000002" not in text
    assert text.count(b"#time=1da1747c66d0000") == 2
    assert b"#link" in text


def test_profiles_are_spelled_as_windows_does() -> None:
    text = capitalised_profiles(TEXT)
    assert b'"Path"="C:\\\\Users\\\\me"' in text
    assert b'=str(2):"C:\\\\Users"' in text
    assert capitalised_profiles(b'"x"="C:\\\\usersfoo"') == b'"x"="C:\\\\usersfoo"'


@pytest.mark.parametrize("data", [b"", b"REGEDIT4\n", b"\x00" * 20])
def test_what_is_no_registry_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        RegistryText.parse(data)
    with pytest.raises(InvalidRequest):
        quoted("é")
