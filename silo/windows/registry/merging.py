"""Layers' hives over Wine's registry files. Pure.

Only the blocks that a layer touches are parsed and written anew; all others go through byte for byte. New keys come at the
end, where Wine finds them as well as anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from silo.errors import InvalidRequest
from silo.model.windows_names import fold
from silo.windows.hives import DamagedRegistry, Key, Layering, merge_trees, read_hive
from silo.windows.hives.places import PLACES, HivePlace, graft
from silo.windows.hives.tree import FLAG_LINK, MAXIMUM_DEPTH, walk
from silo.windows.hives.wine_text import escape_name, write_block
from silo.windows.registry.links import find_links, follow_links
from silo.windows.registry.sections import EMPTY, LIMITS, RegistrySections


def merge_registry(base: Mapping[str, bytes], layers: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    """Wine's files with the deltas of an image's layers applied: those files that changed.

    `base`: `system.reg`, `userdef.reg` and others, which are passed over. `layers`: the lowest first, each a mapping of the
    names in its directory Hives (`Software_Delta`, without case) to files; what is no registry hive of Windows is passed over.
    Raises DamagedRegistry and InvalidRequest that name layer (from 0), hive and offset.
    """
    deltas: dict[str, list[NamedDelta]] = {}
    for index, layer in enumerate(layers):
        hives = {name.lower(): data for name, data in layer.items()}
        for place in PLACES:
            untrusted_data = hives.get(place.delta_name.lower())
            if untrusted_data is not None:
                where = f"{place.delta_name} of layer {index}"
                deltas.setdefault(place.wine_file, []).append((where, _read_delta(place, where, untrusted_data)))
    merged = {}
    for file, named in deltas.items():
        before = base.get(file, EMPTY)
        after = merge_wine_file(file, before, named)
        if after != before:
            merged[file] = after
    return merged


NamedDelta = tuple[str, Key]
"""What an error calls it, and a delta of a Wine file."""


def _read_delta(place: HivePlace, where: str, untrusted_data: bytes) -> Key:
    with _naming(where):
        try:
            return graft(place, read_hive(untrusted_data, limits=LIMITS).root)
        except DamagedRegistry as error:
            raise DamagedRegistry(error.reason, error.offset, kind=f"registry hive {where}", hint=error.hint) from error


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except DamagedRegistry:
        raise
    except InvalidRequest as error:
        raise InvalidRequest(f"the registry hive {where} cannot be applied", details=error.brief) from error


def merge_wine_file(file: str, before: bytes, deltas: Sequence[NamedDelta]) -> bytes:
    """One file with deltas of it, the lowest first. Raises DamagedRegistry, InvalidRequest."""
    sections = RegistrySections(before)
    links = find_links(file, sections)
    parts: list[Key] = []
    touched: dict[str, None] = {"": None}
    replaced: set[str] = set()
    for where, delta in deltas:
        with _naming(where):
            moved = follow_links(delta, links)
            for path, key in (found for part in moved for found in walk(part)):
                folded = fold(path)
                if folded.count("\\") >= MAXIMUM_DEPTH - 1:
                    raise InvalidRequest(f"keys are nested deeper than {MAXIMUM_DEPTH} levels")
                touched[folded] = None
                if key.layering in (Layering.TOMBSTONE, Layering.SUPERSEDE_TREE):
                    replaced.add(folded)
        parts += moved
    old = sections.read(touched)
    return _Writer(sections, old, merge_trees(old, *parts), touched, replaced).write()


class _Writer:
    """Splices what changed into a file's text."""

    def __init__(
        self, sections: RegistrySections, old: Key, new: Key, touched: Mapping[str, None], replaced: set[str]
    ) -> None:
        self._sections = sections
        self._old = {fold(path): key for path, key in walk(old)}
        self._new = {fold(path): (path, key) for path, key in walk(new)}
        self._gone = {path for top in replaced for path in sections.below(top)}.union(
            path for path in touched if path not in self._new
        ) - self._new.keys()
        self._written: dict[str, str] = {"": ""}

    def write(self) -> bytes:
        edits: list[tuple[int, int, str]] = []
        added: list[str] = []
        for path in self._gone:
            edits += [(section.start, section.end, "") for section in self._sections.places.get(path, ())]
        for path, (shown, key) in self._new.items():
            self._written[path] = self._heading(path, shown)
            sections = self._sections.places.get(path)
            if sections is not None:
                if not _same(self._old.get(path), key):
                    first, *more = sections
                    gap = "\n" if self._sections.text.endswith("\n\n", first.start, first.end) else ""
                    edits.append((first.start, first.end, write_block(key, self._written[path])[1:] + gap))
                    edits += [(section.start, section.end, "") for section in more]
            elif key.values or key.class_name or key.flags & FLAG_LINK or self._is_leaf(path, key):
                added.append(write_block(key, self._written[path]))
        return self._spliced(sorted(edits), added).encode("latin-1")

    def _heading(self, path: str, shown: str) -> str:
        """The key as the file has it already, or its name below its parent's (parents come first)."""
        written = self._sections.heading(path) if path and path not in self._gone else None
        if written is not None:
            return written
        above, _, name = shown.rpartition("\\")
        parent = self._written[fold(above)]
        return f"{parent}\\\\{escape_name(name)}" if parent else escape_name(name)

    def _is_leaf(self, path: str, key: Key) -> bool:
        if not path or key.subkeys:
            return False
        return all(below in self._gone for below in self._sections.below(path))

    def _spliced(self, edits: list[tuple[int, int, str]], added: list[str]) -> str:
        text, parts, at = self._sections.text, [], 0
        for start, end, block in edits:
            parts += [text[at:start], block]
            at = end
        parts.append(text[at:])
        spliced = "".join(parts)
        if not added:
            return spliced
        return "".join((spliced.rstrip("\n"), "\n", *added))


def _same(old: Key | None, new: Key) -> bool:
    return old is not None and (old.values, old.class_name, old.flags) == (new.values, new.class_name, new.flags)
