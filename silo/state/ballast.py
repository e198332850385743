"""A file that takes up space until the disk is full, and is then given up so that the state can still be written.

Without it a full disk could not be recovered from: to remove a container is to write that it is gone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SIZE_BYTES = 4 << 20


class Ballast:
    """Kept beside the database; made again when there is room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._there = False

    def keep(self) -> None:
        """Make it if it is missing; costs nothing while it is there, silent where there is no room."""
        if self._there:
            return
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE_BYTES)
            self._there = True
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def give_up(self) -> bool:
        """Whether there was something to give."""
        self._there = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
