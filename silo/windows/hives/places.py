"""Where the hives of an image's layers lie in Wine's registry files. Pure.

    Hives/Software_Delta, System_Delta, Sam_Delta, Security_Delta    keys of system.reg
    Hives/DefaultUser_Delta                                          userdef.reg as a whole

Wine's `System\\CurrentControlSet` is a link to ControlSet001, the name that deltas use, so nothing is renamed. A user's own
registry (user.reg) is a file of the profile and no hive of a layer.

Source: microsoft/hcsshim, internal/wclayer/cim/common.go (the names); Wine, server/registry.c (the files).
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.windows.hives.tree import Hive, Key, Layering, find_key

DELTA_ROOT = "ROOT"


class HivePlace(msgspec.Struct, frozen=True):
    """One hive of a layer."""

    delta_name: str
    """Its file in the layer's directory Hives; other cases of it are the same file."""
    config_name: str
    """Its file in C:\\Windows\\System32\\config of a base layer."""
    wine_file: str
    wine_key: str
    """A key at the top of that file, or empty for all of it."""


PLACES = (
    HivePlace("Software_Delta", "SOFTWARE", "system.reg", "Software"),
    HivePlace("System_Delta", "SYSTEM", "system.reg", "System"),
    HivePlace("Sam_Delta", "SAM", "system.reg", "SAM"),
    HivePlace("Security_Delta", "SECURITY", "system.reg", "SECURITY"),
    HivePlace("DefaultUser_Delta", "DEFAULT", "userdef.reg", ""),
)


def find_place(name: str) -> HivePlace | None:
    """The place of a hive by the name of its delta, without case."""
    return next((place for place in PLACES if place.delta_name.lower() == name.lower()), None)


def graft(place: HivePlace, delta: Key) -> Key:
    """A hive's delta as a delta of its Wine file. Raises InvalidRequest for one that deletes the hive."""
    if delta.layering is Layering.TOMBSTONE:
        raise InvalidRequest(f"the registry layer {place.delta_name} deletes the whole hive")
    if not place.wine_key:
        return delta
    return Key(name="", subkeys=(replace(delta, name=place.wine_key),), inherit_class=True)


def build_delta_hive(place: HivePlace, delta: Key) -> Hive | None:
    """The part of a Wine file's delta that belongs into one hive, as Windows keeps it; None when nothing changed there.

    Raises InvalidRequest when the delta deletes the hive.
    """
    part = find_key(delta, place.wine_key)
    if part is None:
        return None
    if part.layering is Layering.TOMBSTONE:
        raise InvalidRequest(f"the whole registry key {place.wine_key} was deleted, which no layer can say")
    return Hive(root=replace(part, name=DELTA_ROOT), minor_version=6, modified=part.modified, layered=True)
