"""Deltas of hives find their place in Wine's files, and come back from there."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.windows.hives import Key, Value, diff_trees, merge_trees, read_hive, write_hive
from silo.windows.hives.places import PLACES, build_delta_hive, find_place, graft
from silo.windows.hives.tree import find_key, tombstone

MACHINE = Key(
    "",
    subkeys=(
        Key("Software", subkeys=(Key("Old", (Value("x", 4, bytes(4)),)), Key("Kept"))),
        Key("System", (), (Key("ControlSet001"), Key("CurrentControlSet", flags=0x10))),
    ),
    class_name="Machine",
)


def test_places_are_found_without_case() -> None:
    assert [find_place(place.delta_name.upper()) for place in PLACES] == list(PLACES)
    assert find_place("Components_Delta") is None


def test_a_setx_of_one_layer_is_seen_in_the_machine_and_becomes_a_layer_again() -> None:
    system = find_place("system_delta")
    assert system is not None
    path = Value("Path", 2, "C:\\app\0".encode("utf-16-le"))
    environment = Key("Environment", (path,), inherit_class=True)
    delta = Key("ROOT", subkeys=(Key("ControlSet001", subkeys=(environment,), inherit_class=True),), inherit_class=True)
    machine = merge_trees(MACHINE, graft(system, delta))
    key = find_key(machine, "System\\ControlSet001\\Environment")
    assert key is not None and key.values == (path,) and machine.class_name == "Machine"
    found = diff_trees(MACHINE, machine)
    assert found is not None
    hive = build_delta_hive(system, found)
    assert hive is not None and hive.layered and hive.root.name == "ROOT"
    again = read_hive(write_hive(hive)).root
    assert diff_trees(merge_trees(MACHINE, graft(system, again)), machine) is None
    software = find_place("Software_Delta")
    assert software is not None and build_delta_hive(software, found) is None


def test_the_default_user_has_a_file_of_its_own() -> None:
    user = find_place("DefaultUser_Delta")
    assert user is not None
    delta = Key("ROOT", (Value("x", 3, b"1"),))
    assert graft(user, delta) is delta
    hive = build_delta_hive(user, delta)
    assert hive is not None and hive.root == delta


def test_a_whole_hive_is_not_deleted() -> None:
    for place in PLACES:
        with pytest.raises(InvalidRequest, match="deletes the whole hive"):
            graft(place, tombstone("ROOT"))
    with pytest.raises(InvalidRequest, match="Software was deleted"):
        build_delta_hive(PLACES[0], Key("", subkeys=(tombstone("Software"),)))
