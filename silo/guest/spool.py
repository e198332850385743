"""Output that the host has not acknowledged yet: the newest in memory, what is older in an unnamed file, both bounded.

The file is used as a ring: the byte at absolute offset o lies at o modulo its size. While the host keeps up no file is made.
"""

from __future__ import annotations

import os

MEMORY_BYTES = 262144
FILE_BYTES = 8 << 20


class Spool:
    """Holds the bytes from `start` to `end`, absolute offsets in the stream."""

    def __init__(self, directory: str, *, memory_bytes: int = MEMORY_BYTES, file_bytes: int = FILE_BYTES) -> None:
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._memory = bytearray()
        self._file = -1
        self._broken = False
        self.start = 0
        self.end = 0

    @property
    def room(self) -> int:
        limit = self._memory_bytes if self._broken else self._memory_bytes + self._file_bytes
        return max(0, limit - (self.end - self.start))

    def append(self, data: bytes) -> None:
        """At most `room` bytes."""
        self._memory += data
        self.end += len(data)
        excess = len(self._memory) - self._memory_bytes
        if excess > 0 and not self._broken:
            self._spill(excess)

    def _spill(self, count: int) -> None:
        offset = self.end - len(self._memory)
        view = memoryview(self._memory)
        done = 0
        try:
            if self._file < 0:
                self._file = os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            while done < count:
                at = (offset + done) % self._file_bytes
                done += os.pwrite(self._file, view[done : done + min(count - done, self._file_bytes - at)], at)
        except OSError:
            # no space: what is in memory stays there, and the program waits for the host from now on
            self._broken = True
        finally:
            view.release()
        del self._memory[:done]

    def read(self, offset: int, maximum: int) -> bytes:
        """Up to `maximum` bytes from `offset`, which must be held; fewer where file and memory meet."""
        memory_start = self.end - len(self._memory)
        if offset >= memory_start:
            at = offset - memory_start
            return bytes(self._memory[at : at + maximum])
        at = offset % self._file_bytes
        return os.pread(self._file, min(maximum, memory_start - offset, self._file_bytes - at), at)

    def acknowledge(self, offset: int) -> None:
        """Forget what lies before `offset`, which must not be beyond the end."""
        memory_start = self.end - len(self._memory)
        if offset <= self.start:
            return
        self.start = offset
        if offset >= memory_start:
            del self._memory[: offset - memory_start]
            if self._file >= 0:
                self._close_file()

    def _close_file(self) -> None:
        os.close(self._file)
        self._file = -1
        self._broken = False

    def close(self) -> None:
        self._memory.clear()
        self.start = self.end
        if self._file >= 0:
            self._close_file()
