"""Layers of key trees: applying a delta to what lies below it, and finding the delta between two trees. Pure.

A tree without layer semantics is *plain*. `merge_trees` of a plain tree and deltas is plain; `diff_trees` takes two plain trees and
gives a delta with `merge_trees(old, delta)` equal to the new one, except for times and the order of values.

Source: msuhanov/regf, "Layered keys" (the kernel's view of a stack of keys).
"""

from __future__ import annotations

from itertools import chain

from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.model.windows_names import fold
from silo.windows.hives.tree import Key, Layering, Value, tombstone, value_tombstone


def merge_trees(base: Key, *deltas: Key) -> Key:
    """The plain tree that a stack of layers shows, the lowest first. The roots' names mean nothing; the base's is kept.

    Raises InvalidRequest for a delta whose root is a tombstone.
    """
    merged = _without_layers(base)
    for delta in deltas:
        if delta.layering is Layering.TOMBSTONE:
            raise InvalidRequest("a registry layer deletes the whole hive")
        merged = _merge(merged, replace(delta, name=merged.name))
    return merged


# One frame a level, since trees may be as deep as MAXIMUM_DEPTH.
def _merge(lower: Key, upper: Key) -> Key:
    """`upper` is no tombstone."""
    if upper.layering is Layering.SUPERSEDE_TREE:
        # nothing but the class can come from below
        plain = _without_layers(upper)
        return replace(plain, class_name=lower.class_name) if upper.inherit_class else plain
    subkeys = {fold(key.name): key for key in lower.subkeys} if upper.subkeys else {}
    for key in upper.subkeys:
        name = fold(key.name)
        below = subkeys.get(name)
        if key.layering is Layering.TOMBSTONE:
            subkeys.pop(name, None)
        else:
            subkeys[name] = _without_layers(key) if below is None else _merge(below, key)
    return Key(
        name=upper.name,
        values=_merge_values(lower.values if upper.layering is Layering.MERGE else (), upper.values),
        subkeys=tuple(subkeys.values()) if upper.subkeys else lower.subkeys,
        modified=max(lower.modified, upper.modified),
        class_name=lower.class_name if upper.inherit_class else upper.class_name,
        security=upper.security or lower.security,
        flags=upper.flags,
        user_flags=upper.user_flags,
    )


def _merge_values(lower: tuple[Value, ...], upper: tuple[Value, ...]) -> tuple[Value, ...]:
    if not upper:
        return lower
    merged = {fold(value.name): value for value in lower}
    merged.update((fold(value.name), value) for value in upper)
    return tuple(value for value in merged.values() if not value.tombstone)


def _without_layers(key: Key) -> Key:
    """What a key shows that has nothing below it; a plain key is itself, not a copy."""
    subkeys = []
    changed = bool(key.layering) or key.inherit_class
    for subkey in key.subkeys:
        if subkey.layering is Layering.TOMBSTONE:
            changed = True
            continue
        plain = _without_layers(subkey)
        changed = changed or plain is not subkey
        subkeys.append(plain)
    changed = changed or any(value.tombstone for value in key.values)
    if not changed:
        return key
    return replace(
        key,
        values=tuple(value for value in key.values if not value.tombstone),
        subkeys=tuple(subkeys),
        layering=Layering.MERGE,
        inherit_class=False,
    )


def diff_trees(old: Key, new: Key) -> Key | None:
    """The delta that makes `old` into `new`, or None when nothing but times and order changed.

    It names what changed and nothing else: keys on the way are merged and inherit their class, what is gone has a tombstone.
    Raises InvalidRequest when a tree is not plain.
    """
    _check_plain(old)
    _check_plain(new)
    return _diff(old, new, is_root=True)


def _diff(old: Key, new: Key, *, is_root: bool = False) -> Key | None:
    if old is new:
        return None
    before = {fold(key.name): key for key in old.subkeys}
    subkeys = []
    for key in new.subkeys:
        below = before.pop(fold(key.name), None)
        changed = key if below is None else _diff(below, key)
        if changed is not None:
            subkeys.append(changed)
    subkeys += [tombstone(key.name, new.modified) for key in before.values()]
    values = _diff_values(old.values, new.values)
    if not values and not subkeys and not _differs_itself(old, new, is_root):
        return None
    inherits = new.class_name == old.class_name
    return replace(
        new,
        values=values,
        subkeys=tuple(subkeys),
        class_name="" if inherits else new.class_name,
        inherit_class=inherits,
    )


def _differs_itself(old: Key, new: Key, is_root: bool) -> bool:
    """Whether anything but content changed; a descriptor that is merely unknown is no change."""
    return (
        (not is_root and new.name != old.name)
        or new.security not in (b"", old.security)
        or (new.class_name, new.flags, new.user_flags) != (old.class_name, old.flags, old.user_flags)
    )


def _diff_values(old: tuple[Value, ...], new: tuple[Value, ...]) -> tuple[Value, ...]:
    if old == new:
        return ()
    before = {fold(value.name): value for value in old}
    after = {fold(value.name): value for value in new}
    gone = (value_tombstone(value.name) for name, value in before.items() if name not in after)
    return tuple(chain((value for name, value in after.items() if before.get(name) != value), gone))


def _check_plain(key: Key) -> None:
    if _without_layers(key) is not key:
        raise InvalidRequest("a registry layer was given where a whole registry is needed")
