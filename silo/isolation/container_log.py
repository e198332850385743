"""Writing a container's log: records appended to a file that may never stop the container.

Standard library only (the keeper runs without site-packages).
"""

from __future__ import annotations

import contextlib
import os
import time

from silo.model.log import MAX_PAYLOAD_BYTES, encode_record

READ_BYTES = MAX_PAYLOAD_BYTES


class LogWriter:
    """Appends to `path`; with `maximum_bytes` the file becomes `path.1` when it is full and a new one begins.

    A full disk costs output, never the container: a record that did not fit is cut off again, so that what follows stays
    readable, and `lost_bytes` counts what is missing.
    """

    def __init__(self, path: str, maximum_bytes: int) -> None:
        self._path = path
        self._maximum = maximum_bytes
        self.lost_bytes = 0
        self._file = self._open()
        self._size = os.fstat(self._file).st_size if self._file >= 0 else 0

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return -1

    def append(self, stream: int, payload: bytes) -> None:
        if self._file < 0:
            self._file = self._open()
            if self._file < 0:
                self.lost_bytes += len(payload)
                return
            self._size = os.fstat(self._file).st_size
        record = encode_record(stream, time.time_ns(), payload)
        if self._maximum and self._size and self._size + len(record) > self._maximum:
            self._rotate()
        try:
            written = os.write(self._file, record)
        except OSError:
            written = 0
        if written == len(record):
            self._size += written
            return
        self.lost_bytes += len(payload)
        if written:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)

    def _rotate(self) -> None:
        try:
            os.rename(self._path, f"{self._path}.1")  # noqa: PTH104 - pathlib would triple the keeper's memory
        except OSError:
            return
        os.close(self._file)
        self._size = 0
        self._file = self._open()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
