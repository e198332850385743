"""What `silo registry` shows of a registry: keys as `reg query` prints them, and the text of `reg export`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from silo.engine.ports import RegistrySource
from silo.errors import InvalidRequest, NotFound
from silo.model.windows_names import fold, fold_lower, sort_key
from silo.windows.hives import Key, Layering, Value, ValueType, diff_trees, export_reg_text
from silo.windows.hives.reg_text import HEADER, printable
from silo.windows.hives.tree import find_key, tombstone
from silo.windows.registry.comparing import diff_wine_file
from silo.windows.registry.sections import EMPTY
from silo.windows.registry.views import HiveView, RegistryView, WineView

_DELETED = "(deleted)"
_NUMBERS: dict[int, int] = {ValueType.DWORD: 4, ValueType.QWORD: 8}
"""Their sizes; of another size they are bytes."""
_TEXTS = (ValueType.SZ, ValueType.EXPAND_SZ, ValueType.MULTI_SZ, ValueType.LINK)


class WindowsRegistry:
    """silo.engine.ports.RegistryViewer."""

    def query(self, source: RegistrySource, key: str, *, value: str | None, recursive: bool) -> str:
        """As `reg query KEY [/v value] [/s]`; for a key above all files, and for none, the keys below it."""
        view = _open(source)
        if tops := view.tops_below(key):
            return "".join(f"{printable(top)}\n" for top in tops)
        place = view.find(key)
        found = list(_blocks(place.shown, _ordered(view.read(place)), value, recursive))
        if not found and value is not None:
            name = printable(value) or "(Default)"
            raise NotFound(f"the registry key {printable(place.shown)} has no value {name}")
        return "\n".join(found)

    def export(self, source: RegistrySource, key: str) -> str:
        view = _open(source)
        places = [view.find(key)] if key else view.places
        return _joined(export_reg_text(_ordered(view.read(place)), place.shown) for place in places)

    def diff(self, before: RegistrySource, after: RegistrySource, key: str) -> str:
        if bool(before.hive) != bool(after.hive):
            raise InvalidRequest("a hive can be compared with a hive only")
        return _diff_hives(before, after, key) if after.hive else _diff_files(before.files, after.files, key)


def _open(source: RegistrySource) -> RegistryView:
    if source.hive:
        (untrusted_data,) = source.files.values()
        return HiveView(source.hive, untrusted_data)
    return WineView(source.files)


def _diff_files(before: Mapping[str, bytes], after: Mapping[str, bytes], key: str) -> str:
    before = {file: before.get(file, EMPTY) for file in after}
    old, new = WineView(before), WineView(after)
    texts = []
    for place in [new.find(key)] if key else new.places:
        delta = diff_wine_file(place.file, before[place.file], after[place.file])
        part = find_key(delta, place.path) if delta is not None else None
        if part is None and key and new.find_existing(place) is None:
            # raises for a key that is in neither; the other one went with a key above it
            part = tombstone(old.read(place).name)
        if part is not None:
            texts.append(export_reg_text(_ordered(part), place.shown, sparse=True))
    return _joined(texts)


def _diff_hives(before: RegistrySource, after: RegistrySource, key: str) -> str:
    old_view, new_view = _open(before), _open(after)
    place = new_view.find(key) if key else new_view.places[0]
    old, new = old_view.find_existing(old_view.find(key) if key else old_view.places[0]), new_view.find_existing(place)
    if new is None:
        change: Key | None = tombstone((old or new_view.read(place)).name)
    else:
        change = new if old is None else diff_trees(old, new)
    return "" if change is None else export_reg_text(_ordered(change), place.shown, sparse=True)


def _ordered(key: Key) -> Key:
    """With subkeys by name, wherever they lie in a file."""
    subkeys = []
    for subkey in sorted(key.subkeys, key=lambda subkey: sort_key(fold_lower(subkey.name))):
        subkeys.append(_ordered(subkey))  # a comprehension would be a second frame at each level
    return replace(key, subkeys=tuple(subkeys))


def _joined(texts: Iterable[str]) -> str:
    """Several of export_reg_text's as one."""
    bodies = [text.removeprefix(f"{HEADER}\n") for text in texts]
    return "".join((f"{HEADER}\n", *bodies)) if bodies else ""


def _blocks(path: str, root: Key, value: str | None, recursive: bool) -> Iterator[str]:
    """One text for each key that is shown."""
    waiting = [(path, root)]
    while waiting:
        at, key = waiting.pop()
        shown = printable(at)
        if value is None:
            lines = [shown + (f"    {_DELETED}" if key.layering is Layering.TOMBSTONE else ""), *map(_line, key.values)]
            if not recursive and key.subkeys:
                lines += ["", *(f"{shown}\\{printable(subkey.name)}" for subkey in key.subkeys)]
            yield "\n".join((*lines, ""))
        else:
            found = [_line(candidate) for candidate in key.values if fold(candidate.name) == fold(value)]
            if found:
                yield "\n".join((shown, *found, ""))
        if recursive:
            waiting += [(f"{at}\\{subkey.name}", subkey) for subkey in reversed(key.subkeys)]


def _line(value: Value) -> str:
    name = printable(value.name) or "(Default)"
    if value.tombstone:
        return f"    {name}    {_DELETED}"
    return f"    {name}    {_type(value.type)}    {_data(value)}".rstrip(" ")


def _type(number: int) -> str:
    try:
        return f"REG_{ValueType(number).name}"
    except ValueError:
        return f"REG_0x{number:x}"


def _data(value: Value) -> str:
    data = value.data
    if len(data) == _NUMBERS.get(value.type):
        return f"0x{int.from_bytes(data, 'little'):x}"
    if value.type in _TEXTS and len(data) % 2 == 0:
        texts = data.decode("utf-16-le", "surrogatepass").rstrip("\0").split("\0")
        return "\\0".join(map(printable, texts))
    return data.hex().upper()
