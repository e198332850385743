"""A Wine registry file as the places of its blocks, so that only what matters is ever parsed. Pure.

Finding the blocks of a file takes a tenth of what parsing it takes. Paths are folded names joined by backslashes; a key that
Wine writes no block for (it has subkeys and nothing else) exists by the blocks below it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from silo.model.windows_names import fold
from silo.windows.hives import DamagedRegistry, HiveLimits, Key, read_wine_text
from silo.windows.hives.tree import MAXIMUM_DEPTH
from silo.windows.hives.wine_text import SIGNATURE, escape_name
from silo.windows.wine_escapes import unescape

LIMITS = HiveLimits(size_bytes=64 << 20, cells=500_000)
"""For one registry file or hive: thirty times what the base has."""
EMPTY = f"{SIGNATURE}\n".encode()
"""A file without keys."""

_HEADING = re.compile(r"^\[([^\]\\\n]*(?:\\.[^\]\\\n]*)*)\][^\n]*\n?(?:#time=[0-9a-fA-F]*\r?\n)?", re.MULTILINE)
_LINK = re.compile(r"^#link\r?$", re.MULTILINE)
# What two escaped backslashes become while names are folded; no name of Windows holds a NUL.
_SEPARATOR = "\0"


class Section(NamedTuple):
    """One block: offsets of its heading, of what comes after heading and time, and of its end."""

    start: int
    body: int
    end: int
    heading: str
    """The key as it is written."""


class RegistrySections:
    """The blocks of one file. Raises DamagedRegistry for what is no registry file."""

    def __init__(self, untrusted_data: bytes) -> None:
        if len(untrusted_data) > LIMITS.size_bytes:
            raise _damaged(f"{len(untrusted_data)} bytes, more than {LIMITS.size_bytes}", 0)
        self.data = untrusted_data
        # byte for byte: what is not touched goes through as it is
        self.text = untrusted_data.decode("latin-1")
        if not self.text.startswith(SIGNATURE):
            raise _damaged(f"the first line is not {SIGNATURE}", 0)
        self.places: dict[str, list[Section]] = {}
        """Folded path → its blocks: mostly one."""
        found = list(_HEADING.finditer(self.text))
        self.header = self.text[: found[0].start()] if found else self.text
        ends = [*(match.start() for match in found), len(self.text)]
        for match, end in zip(found, ends[1:], strict=True):
            section = Section(match.start(), match.end(), end, match[1])
            path = _folded(match[1])
            if path.count("\\") >= MAXIMUM_DEPTH - 1:
                raise _damaged(f"keys are nested deeper than {MAXIMUM_DEPTH} levels", section.start)
            self.places.setdefault(path, []).append(section)

    @cached_property
    def paths(self) -> list[str]:
        """Of all blocks, sorted, so that what lies below a key is one range."""
        return sorted(self.places)

    def body(self, path: str) -> str | None:
        """What a key's block says, without its time; None where it has none."""
        sections = self.places.get(path)
        if sections is None:
            return None
        return "".join(self.text[section.body : section.end] for section in sections).rstrip("\r\n")

    def is_link(self, path: str) -> bool:
        """Whether a key means another one."""
        return any(_LINK.search(self.text, section.body, section.end) for section in self.places.get(path, ()))

    def below(self, path: str) -> Iterator[str]:
        """Paths of all blocks below a key."""
        prefix = f"{path}\\" if path else ""
        for index in range(bisect_left(self.paths, prefix), len(self.paths)):
            if not self.paths[index].startswith(prefix):
                return
            yield self.paths[index]

    def heading(self, path: str) -> str | None:
        """A key's path as it is written, with doubled backslashes, also of one without a block; None if there is no key."""
        sections = self.places.get(path)
        if sections is not None:
            return sections[0].heading
        lower = next(self.below(path), None)
        if lower is None:
            return None
        written = self.places[lower][0].heading.split("\\\\")
        if len(written) != lower.count("\\") + 1:
            # not as Wine writes it
            written = [escape_name(part) for part in lower.split("\\")]
        return "\\\\".join(written[: path.count("\\") + 1])

    def read(self, paths: Iterable[str]) -> Key:
        """A tree of those keys among `paths` that exist, without their other subkeys. Raises DamagedRegistry."""
        parts = [self.header if self.header.endswith("\n") else f"{self.header}\n"]
        for path in sorted(paths):
            sections = self.places.get(path)
            if sections is not None:
                parts += [self.text[section.start : section.end].rstrip("\n") for section in sections]
            elif path and (heading := self.heading(path)) is not None:
                parts.append(f"[{heading}]")
        try:
            return read_wine_text("\n".join(parts).encode("latin-1"), limits=LIMITS).root
        except DamagedRegistry:
            # once more as a whole, for the place
            read_wine_text(self.data, limits=LIMITS)
            raise


def _folded(heading: str) -> str:
    """As silo.windows.hives.wine_text reads it; nearly all names need no unescaping."""
    path = heading.replace("\\\\", _SEPARATOR)
    plain = "\\" not in path and path.isascii() and _SEPARATOR * 2 not in path
    if plain and path[:1] != _SEPARATOR and path[-1:] != _SEPARATOR:
        return path.upper().replace(_SEPARATOR, "\\")
    # a file is UTF-8 where it is not ASCII
    written = heading.encode("latin-1").decode("utf-8", "ignore")
    return "\\".join(fold(part) for part in unescape(written).split("\\") if part)


def with_parents(paths: Iterable[str]) -> set[str]:
    """The paths and those of all keys above them. Raises DamagedRegistry for more than are allowed."""
    found: set[str] = set()
    for path in paths:
        at = path
        while at not in found:
            found.add(at)
            at = at.rpartition("\\")[0]
        if len(found) > LIMITS.cells:
            raise _damaged("more keys than are allowed", 0)
    return found


def _damaged(reason: str, offset: int) -> DamagedRegistry:
    return DamagedRegistry(reason, offset, kind="registry text")
