"""Registry links: what a layer says of a key that is a link below it belongs to the key that is meant. Pure.

Programs never see what lies below a link, so nothing is written there. Wine's base has some sixty: parts of the 32-bit view
(`Software\\Wow6432Node\\Classes`) and old names. `CurrentControlSet` is one that no file holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.model.windows_names import fold
from silo.windows.hives import Key, Layering, read_wine_text
from silo.windows.hives.tree import FLAG_LINK, find_key, find_value, split_path, walk
from silo.windows.registry.sections import LIMITS, RegistrySections

LINK_VALUE = "SymbolicLinkValue"
CURRENT_CONTROL_SET = "SYSTEM\\CURRENTCONTROLSET"
CONTROL_SET = "System\\ControlSet001"

_MAXIMUM_MOVES = 1000


def find_links(file: str, sections: RegistrySections) -> dict[str, str]:
    """The links of a Wine file: folded path → path of the key that is meant, in the same file."""
    links = {CURRENT_CONTROL_SET: CONTROL_SET} if file == "system.reg" else {}
    base_key = read_wine_text(sections.header.encode("latin-1"), limits=LIMITS).base_key
    prefix = "\\" + fold(base_key) + "\\"
    for path in sections.paths:
        if sections.is_link(path):
            target = _target(sections, path)
            if fold(target).startswith(prefix):
                links[path] = target[len(prefix) :]
    return links


def _target(sections: RegistrySections, path: str) -> str:
    key = sections.read([path])
    for name in split_path(path):
        key = _subkey(key, fold(name)) or Key("")
    value = find_value(key, LINK_VALUE)
    return value.data.decode("utf-16-le", "replace") if value else ""


def follow_links(delta: Key, links: Mapping[str, str]) -> list[Key]:
    """The delta as several, to be applied in order, none of which says anything below a link.

    A layer that deletes a link, makes it anew or puts a key in its place means the link itself. Raises InvalidRequest for
    links that lead round in a circle.
    """
    settled: list[Key] = []
    waiting = [delta]
    moves = 0
    while waiting:
        part = waiting.pop(0)
        for path, target in links.items():
            cut, content = _cut(part, path.split("\\"))
            if content is not None:
                moves += 1
                if moves > _MAXIMUM_MOVES:
                    raise InvalidRequest(f"the registry link {path} leads round in a circle")
                waiting = [cut, _below(content, split_path(target)), *waiting]
                break
        else:
            settled.append(part)
    return settled


def _cut(key: Key, path: list[str]) -> tuple[Key, Key | None]:
    """The tree without a subkey that means a link's target, and that subkey."""
    below = _subkey(key, path[0])
    if below is None or below.layering is not Layering.MERGE or below.flags & FLAG_LINK:
        return key, None
    if len(path) == 1:
        return replace(key, subkeys=tuple(subkey for subkey in key.subkeys if subkey is not below)), below
    rest, content = _cut(below, path[1:])
    if content is None:
        return key, None
    return replace(key, subkeys=tuple(rest if subkey is below else subkey for subkey in key.subkeys)), content


def without_former_links(delta: Key, old: Key, new: Key) -> Key:
    """The delta between two states, where a key that was a link and is none any more supersedes it; else it would be taken for
    what the link means."""
    for path, key in walk(old):
        if path and key.flags & FLAG_LINK:
            now = find_key(new, path)
            if now is not None and not now.flags & FLAG_LINK:
                delta = _put(delta, split_path(path), replace(now, layering=Layering.SUPERSEDE_TREE))
    return delta


def _put(key: Key, path: tuple[str, ...], content: Key) -> Key:
    """The tree with `content` for a subkey that it has."""
    below = _subkey(key, fold(path[0]))
    if below is None:
        return key
    put = content if len(path) == 1 else _put(below, path[1:], content)
    return replace(key, subkeys=tuple(put if subkey is below else subkey for subkey in key.subkeys))


def _below(content: Key, path: tuple[str, ...]) -> Key:
    """A delta that says `content` of another key."""
    key = replace(content, name=path[-1], inherit_class=True, class_name="")
    for name in reversed(("", *path[:-1])):
        key = Key(name=name, subkeys=(key,), inherit_class=True)
    return key


def _subkey(key: Key, folded: str) -> Key | None:
    return next((subkey for subkey in key.subkeys if fold(subkey.name) == folded), None)
