"""Aligned columns as Docker's tabwriter prints them. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], *, least: int = 10, gap: int = 3) -> list[str]:
    """Lines. Every column but the last is as wide as its longest cell and the gap, and at least `least`."""
    widths: list[int] = []
    for row in rows:
        for index, cell in enumerate(row[:-1]):
            width = max(least, len(cell) + gap)
            if index == len(widths):
                widths.append(width)
            elif width > widths[index]:
                widths[index] = width
    return ["".join(cell.ljust(widths[index]) for index, cell in enumerate(row[:-1])) + row[-1] for row in rows]


def clean(text: str) -> str:
    """Text from a container or image for a terminal's line: control characters cannot move the cursor or change colours."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
