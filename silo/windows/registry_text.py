"""What a container changed in its registry: two of Wine's text files compared by what they say. Pure.

The files come out of containers: anything may stand in them, so nothing here raises on what it reads; what is no registry file
has no keys. Times and the order of values mean nothing, nor does what Wine writes by itself (silo/windows/registry/noise.py).

Format: `WINE REGISTRY Version 2`, then blocks `[Key\\\\Sub] time` with lines `"name"=data`, where data may go on behind a `\\`
at a line's end. Source: Wine, server/registry.c (dump_path, save_subkeys).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from silo.engine.ports import FileChange
from silo.windows.registry.noise import Noise
from silo.windows.wine_escapes import SURROGATE, unescape

MODIFIED = 0
ADDED = 1
DELETED = 2

_ROOTS = {"system.reg": "HKLM", "user.reg": "HKCU", "userdef.reg": "HKU\\.Default"}

_HEADING = re.compile(r"\[(?P<key>.*)\](?: \d+)?\Z", re.DOTALL)
_VALUE = re.compile(r'(?:@|"(?P<name>[^"\\]*(?:\\.[^"\\]*)*)")=', re.DOTALL)


def compare_registry(file: str, before: bytes, after: bytes) -> tuple[FileChange, ...]:
    """Changed keys as `HKLM\\Software\\Key`, changed values of a key that stayed as `HKLM\\Software\\Key\\\\Value`, sorted."""
    root = _ROOTS.get(file, file)
    noise = Noise(file, before, after)
    old, new = _blocks(before), _blocks(after)
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key):
            continue
        if key not in old or key not in new:
            kind, block = (ADDED, new[key]) if key in new else (DELETED, old[key])
            if not _is_noise(noise, key, block[1]):
                changes.append(FileChange(kind=kind, path=f"{root}\\{block[0]}"))
            continue
        changes += (
            FileChange(kind=kind, path=f"{root}\\{new[key][0]}\\\\{name or '(Default)'}")
            for kind, name in _changed_values(_values(old[key][1]), _values(new[key][1]))
            if not noise.is_value(key, name.lower())
        )
    return tuple(changes)


def _is_noise(noise: Noise, key: str, lines: str) -> bool:
    """Whether a key that came or went holds nothing but what Wine writes by itself."""
    values = _values(lines)
    return noise.is_key(key) or (bool(values) and all(noise.is_value(key, name) for name in values))


def _blocks(untrusted_data: bytes) -> dict[str, tuple[str, str]]:
    """Key in lower case → (key as written, its lines without times)."""
    text = untrusted_data.decode("latin-1")
    if not text.startswith("WINE REGISTRY"):
        return {}
    blocks = {}
    for block in text.split("\n[")[1:]:
        heading, _, lines = block.partition("\n")
        match = _HEADING.match("[" + heading.rstrip("\r"))
        if match:
            name = _shown(match["key"])
            kept = "\n".join(line for line in lines.split("\n") if line and not line.startswith("#time="))
            blocks[name.lower()] = (name, kept)
    return blocks


def _values(lines: str) -> dict[str, tuple[str, str]]:
    """Name in lower case → (name, data); attributes such as #class count as values."""
    values: dict[str, tuple[str, str]] = {}
    for line in _whole_lines(lines):
        match = _VALUE.match(line)
        if match:
            name = _shown(match["name"] or "")
            values[name.lower()] = (name, line[match.end() :])
        elif line.startswith("#"):
            name, _, data = line.partition("=")
            values[name] = (name, data)
    return values


def _whole_lines(lines: str) -> Iterator[str]:
    """Data of hex values goes on in the next line behind a backslash; strings never end in a bare one."""
    pending: list[str] = []
    for line in lines.split("\n"):
        pending.append(line.strip() if pending else line)
        if line.endswith("\\"):
            pending[-1] = pending[-1][:-1]
            continue
        yield "".join(pending)
        pending = []
    if pending:
        yield "".join(pending)


def _changed_values(old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]) -> Iterator[tuple[int, str]]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield ADDED, new[name][0]
        elif name not in new:
            yield DELETED, old[name][0]
        elif old[name][1] != new[name][1]:
            yield MODIFIED, new[name][0]


def _shown(text: str) -> str:
    """Half of a pair that stands alone cannot be shown."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", unescape(text))
