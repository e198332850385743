"""A registry to look at: keys by the names that people use, in Wine's files or in one hive. Pure.

Names are without case, and HKLM, HKCU, HKU, HKCR and HKCC stand for the long ones. Links on the way to a key are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from silo.errors import InvalidRequest, NotFound
from silo.model.windows_names import fold
from silo.windows.hives import Key, read_hive, read_wine_text
from silo.windows.hives.places import PLACES
from silo.windows.hives.reg_text import printable
from silo.windows.hives.tree import find_key, split_path
from silo.windows.registry.links import CONTROL_SET, find_links
from silo.windows.registry.sections import LIMITS, RegistrySections

MACHINE = "HKEY_LOCAL_MACHINE"
CURRENT_USER = "HKEY_CURRENT_USER"
USERS = "HKEY_USERS"

ABBREVIATIONS = {
    "HKLM": MACHINE,
    "HKCU": CURRENT_USER,
    "HKU": USERS,
    "HKCR": "HKEY_CLASSES_ROOT",
    "HKCC": "HKEY_CURRENT_CONFIG",
}
_ROOTS = {**ABBREVIATIONS, **{name: name for name in ABBREVIATIONS.values()}}
_SYSTEM = "system.reg"
_MAXIMUM_LINKS = 32


class Place(NamedTuple):
    """Where a key lies: its name in full, its file, and its path there."""

    shown: str
    file: str
    path: str


class RegistryView:
    """One registry. `find` and `read` raise NotFound, which names the nearest key that exists, and DamagedRegistry."""

    def __init__(self, places: tuple[Place, ...], *, relative_to: str = "") -> None:
        self.places = places
        """The tops of all files, each once."""
        self._relative_to = relative_to

    def find(self, key: str) -> Place:
        """The place of a key, which need not exist. Raises InvalidRequest for no such root."""
        key = self._in_full(key)
        for top in (*self.places, *self._more_places()):
            if fold(f"{key}\\").startswith(fold(f"{top.shown}\\")):
                below = split_path(key[len(top.shown) :])
                return Place("\\".join((top.shown, *below)), top.file, "\\".join((*split_path(top.path), *below)))
        raise NotFound(
            f"there is no registry key {printable(key)}", details=f"there are {', '.join(self.tops_below(''))}"
        )

    def tops_below(self, key: str) -> list[str]:
        """The tops of files below a key that is in none of them: below `HKU`, and below an empty one all."""
        if not key:
            return [place.shown for place in self.places]
        above = fold(self._in_full(key)) + "\\"
        return [place.shown for place in (*self.places, *self._more_places()) if fold(place.shown).startswith(above)]

    def _in_full(self, key: str) -> str:
        first, *rest = split_path(key) or ("",)
        root = _ROOTS.get(first.upper())
        if root is None:
            if not self._relative_to:
                raise InvalidRequest(
                    f"{printable(key)!r} is no key of a registry: it begins with {', '.join(ABBREVIATIONS)}"
                )
            return "\\".join((self._relative_to, *split_path(key)))
        return "\\".join((root, *rest))

    def _more_places(self) -> tuple[Place, ...]:
        return ()

    def read(self, place: Place) -> Key:
        """The key with all below it."""
        raise NotImplementedError

    def find_existing(self, place: Place) -> Key | None:
        try:
            return self.read(place)
        except NotFound:
            return None


class WineView(RegistryView):
    """The registry in Wine's files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._sections = {file: RegistrySections(data) for file, data in files.items()}
        self._links: dict[str, dict[str, str]] = {}
        tops = {_SYSTEM: MACHINE, "user.reg": CURRENT_USER, "userdef.reg": f"{USERS}\\.DEFAULT"}
        super().__init__(tuple(Place(shown, file, "") for file, shown in tops.items() if file in files))

    def _more_places(self) -> tuple[Place, ...]:
        more = [
            Place(_ROOTS["HKCR"], _SYSTEM, "Software\\Classes"),
            Place(_ROOTS["HKCC"], _SYSTEM, f"{CONTROL_SET}\\Hardware Profiles\\Current"),
        ]
        if "user.reg" in self._sections:
            header = self._sections["user.reg"].header.encode("latin-1")
            user = read_wine_text(header, limits=LIMITS).base_key.rpartition("\\")[2]
            more.append(Place(f"{USERS}\\{user}", "user.reg", ""))
        return tuple(place for place in more if place.file in self._sections)

    def find(self, key: str) -> Place:
        """The place without links on the way, under the name that was asked for."""
        place = super().find(key)
        return place._replace(path=self._followed(place))

    def _followed(self, place: Place) -> str:
        if place.file not in self._links:
            self._links[place.file] = find_links(place.file, self._sections[place.file])
        links = self._links[place.file]
        path = place.path
        for _ in range(_MAXIMUM_LINKS):
            parts = split_path(path)
            for count in range(1, len(parts) + 1):
                target = links.get(fold("\\".join(parts[:count])))
                if target is not None:
                    path = "\\".join((*split_path(target), *parts[count:]))
                    break
            else:
                return path
        raise InvalidRequest(f"registry links lead round in a circle at {printable(place.shown)}")

    def read(self, place: Place) -> Key:
        sections = self._sections[place.file]
        path = fold(place.path)
        if path and sections.heading(path) is None:
            raise _absent(place, lambda above: not above or sections.heading(fold(above)) is not None)
        key = find_key(sections.read([path, *sections.below(path)]), place.path)
        assert key is not None
        return key


class HiveView(RegistryView):
    """The registry in one hive, under the name that its file's name stands for (`Software_Delta`, `NTUSER.DAT`)."""

    def __init__(self, name: str, untrusted_data: bytes) -> None:
        self._root = read_hive(untrusted_data, limits=LIMITS).root
        shown = _hive_name(name)
        super().__init__((Place(shown, "", ""),), relative_to=shown)

    def read(self, place: Place) -> Key:
        key = find_key(self._root, place.path)
        if key is None:
            raise _absent(place, lambda above: find_key(self._root, above) is not None)
        return key


def _hive_name(name: str) -> str:
    for place in PLACES:
        if name.lower() in (place.delta_name.lower(), place.config_name.lower()):
            return f"{MACHINE}\\{place.wine_key}" if place.wine_key else f"{USERS}\\.DEFAULT"
    if name.lower() == "ntuser.dat":
        return CURRENT_USER
    return printable(name.partition(".")[0].replace("\\", "_")) or "HIVE"


def _absent(place: Place, exists: Callable[[str], bool]) -> NotFound:
    path, shown = place.path, place.shown
    while path and not exists(path):
        path, shown = path.rpartition("\\")[0], shown.rpartition("\\")[0]
    return NotFound(
        f"there is no registry key {printable(place.shown)}", details=f"the nearest that exists is {printable(shown)}"
    )
