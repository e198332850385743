"""Wine's registry files of an image and of a container → the hives of a layer. Pure.

Blocks are compared as text first; what differs, with the keys above it, is parsed and compared as trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from silo.model.windows_names import fold, fold_lower
from silo.windows.hives import Key, diff_trees, write_hive
from silo.windows.hives.places import PLACES, build_delta_hive
from silo.windows.registry.links import without_former_links
from silo.windows.registry.noise import Noise
from silo.windows.registry.sections import EMPTY, RegistrySections, with_parents


def diff_registry(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes]:
    """The hives of a layer that make an image's registry into a container's: `{"Software_Delta": …}`; {} when nothing changed.

    Both are Wine's files by name; a file that `after` lacks is unchanged. What Wine itself writes at a start is left out (see
    noise.py), and `user.reg`, which is no hive of a layer (see profiles.py). So is what a program made beside `Software` and
    `System` in HKEY_LOCAL_MACHINE, where Windows lets nobody write.

    Raises DamagedRegistry for a file that is none, InvalidRequest when a whole hive was deleted.
    """
    deltas: dict[str, Key | None] = {}
    hives = {}
    for place in PLACES:
        file = place.wine_file
        if file not in after:
            continue
        if file not in deltas:
            deltas[file] = diff_wine_file(file, before.get(file, EMPTY), after[file])
        delta = deltas[file]
        hive = build_delta_hive(place, delta) if delta is not None else None
        if hive is not None:
            hives[place.delta_name] = write_hive(hive)
    return hives


def diff_wine_file(file: str, before: bytes, untrusted_after: bytes) -> Key | None:
    """The delta between two states of one file, without noise; None when there is none. Raises DamagedRegistry."""
    old, new = changed_parts(file, before, untrusted_after)
    delta = diff_trees(old, new)
    return None if delta is None else without_former_links(delta, old, new)


def changed_parts(file: str, before: bytes, untrusted_after: bytes) -> tuple[Key, Key]:
    """Of both states the keys that changed, with those above them. Raises DamagedRegistry."""
    if before == untrusted_after:
        return Key(""), Key("")
    old, new = RegistrySections(before), RegistrySections(untrusted_after)
    changed = {path for path in old.places.keys() | new.places.keys() if old.body(path) != new.body(path)}
    for path in [path for path in changed if old.is_link(path) and not new.is_link(path)]:
        # see without_former_links
        changed.update(old.below(path), new.below(path))
    paths = with_parents(changed)
    before_changed, after_changed = _without_noise(
        Noise(file, before, untrusted_after), "", old.read(paths), new.read(paths)
    )
    return before_changed or Key(""), after_changed or Key("")


def _without_noise(noise: Noise, path: str, old: Key | None, new: Key | None) -> tuple[Key | None, Key | None]:
    """Both states of one key (None where there is none), in the spelling of the old one; twice None for one that is noise: on
    each side where it is, it holds something, and nothing that is not Wine's own."""
    if noise.is_key(path):
        return None, None
    before, after = ({fold(key.name): key for key in side.subkeys} if side else {} for side in (old, new))
    below = []
    for name in dict.fromkeys((*before, *after)):
        # no comprehension: trees may be so deep that its frames count
        at = f"{path}\\{fold_lower(name)}" if path else fold_lower(name)
        below.append(_without_noise(noise, at, before.get(name), after.get(name)))
    cleaned = (
        _cleaned(noise, path, old, [lower for lower, _ in below]),
        _cleaned(noise, path, new, [upper for _, upper in below]),
    )
    sides = zip(cleaned, (old, new), strict=True)
    if path and all(clean is None or (_is_empty(clean) and clean != key) for clean, key in sides):
        return None, None
    lower, upper = cleaned
    if lower is not None and upper is not None and lower.name != upper.name:
        # other letters of the same name are no change
        upper = replace(upper, name=lower.name)
    return lower, upper


def _cleaned(noise: Noise, path: str, key: Key | None, subkeys: Iterable[Key | None]) -> Key | None:
    if key is None:
        return None
    values = tuple(value for value in key.values if not noise.is_value(path, fold_lower(value.name)))
    return replace(key, values=values, subkeys=tuple(subkey for subkey in subkeys if subkey is not None))


def _is_empty(key: Key) -> bool:
    return not (key.values or key.subkeys or key.class_name or key.flags)
