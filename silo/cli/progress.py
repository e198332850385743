"""Progress of pulls, loads and builds: on a terminal a line for each item that is redrawn with a bar, else one line per change.

Input are the daemon's JSON lines: {"id","status","progressDetail":{"current","total"}}, {"stream"}, {"aux"}, {"errorDetail"}.
"""

from __future__ import annotations

import os

from silo.cli.attach import write_all
from silo.cli.failure import Failure
from silo.cli.table import clean
from silo.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_BAR_CELLS = 30


def show_progress(
    lines: Iterable[dict[str, Any]],
    *,
    descriptor: int = 1,
    quiet: bool = False,
    on_aux: Callable[[dict[str, Any]], None] | None = None,
) -> list[str]:
    """Print until the end; answers the statuses without an id. Raises Failure with the daemon's error."""
    board = Board(descriptor)
    said = []
    for line in lines:
        if line.get("errorDetail") or line.get("error"):
            detail = line.get("errorDetail") or {}
            raise Failure("\n".join(map(clean, str(detail.get("message") or line.get("error")).split("\n"))))
        if line.get("aux") is not None and on_aux:
            on_aux(line["aux"])
        status = str(line.get("stream") or line.get("status") or "")
        if not line.get("id") and status:
            said.append(status.rstrip("\n"))
        if not quiet:
            board.show(line)
    return said


class Board:
    """The lines on the screen, by item."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor) and os.environ.get("TERM", "dumb") != "dumb"
        self._rows: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def show(self, line: dict[str, Any]) -> None:
        item = clean(str(line.get("id") or ""))
        status = str(line.get("stream") or line.get("status") or "").rstrip("\n")
        if not status:
            return
        status = "\n".join(clean(part) for part in status.split("\n"))
        detail = line.get("progressDetail") or {}
        current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        if not self._terminal:
            text = f"{item}: {status}" if item else status
            if self._last.get(item) != text:
                self._put(text + "\n")
            self._last[item] = text
            return
        width, height = self._size()
        if not item:
            self._put(f"{status}\n")
            # What was above scrolls by one.
            self._rows = {name: row + 1 for name, row in self._rows.items()}
            return
        text = f"{item}: {status}{_bar(current, total)}"[: width - 1]
        if self._last.get(item) == text:
            return
        self._last[item] = text
        if item not in self._rows:
            self._rows = {name: row + 1 for name, row in self._rows.items()}
            self._rows[item] = 1
            self._put(f"{text}\n")
            return
        up = self._rows[item]
        if up >= height:
            # Scrolled away: it cannot be reached any more.
            return
        self._put(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")

    def _put(self, text: str) -> None:
        write_all(self._descriptor, text.encode("utf-8", "surrogateescape"))

    def _size(self) -> tuple[int, int]:
        """(columns, lines)"""
        try:
            size = os.get_terminal_size(self._descriptor)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24


def _bar(current: int, total: int) -> str:
    if total <= 0:
        return f" {human_size(current)}" if current else ""
    current = min(current, total)
    filled = current * _BAR_CELLS // total
    bar = f"{'=' * filled}{'>' if filled < _BAR_CELLS else ''}"
    return f" [{bar:<{_BAR_CELLS}}] {human_size(current)}/{human_size(total)}"
