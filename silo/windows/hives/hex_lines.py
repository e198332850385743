"""Bytes of a value in a registry text, which both Wine and regedit break into lines."""

from __future__ import annotations

_COLUMNS = 76


def broken_hex(line: str, data: bytes) -> str:
    """`line` and the bytes as `00,01`, broken where Wine does: behind the comma that fills the columns, if more follow."""
    octets = data.hex(",").split(",") if data else []
    lines = []
    at, columns = 0, len(line)
    while at < len(octets):
        # every byte takes three columns
        fitting = max((_COLUMNS - columns) // 3 + 1, 1)
        lines.append(line + ",".join(octets[at : at + fitting]))
        at += fitting
        line, columns = "  ", 2
    return ",\\\n".join(lines) if lines else line
