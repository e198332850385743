"""Which processes a machine's user has, and when none is left."""

from __future__ import annotations

import time
from pathlib import Path


def processes_of(uid: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"\nUid:\t{uid}\t" in text:
            found.append(text.split("\n", 1)[0])
    return found


def until_gone(uid: int) -> None:
    """bubblewrap reaps QEMU a moment after its end."""
    deadline = time.monotonic() + 5
    while left := processes_of(uid):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
