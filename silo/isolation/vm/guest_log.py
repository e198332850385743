"""The log of a container in a VM: what is in it already is known to a daemon that comes again.

The guest's agent keeps output until it is acknowledged, and sends the rest again after a reconnection: so the host has to say how
much of each stream it has. That is counted from the log itself, from a *mark* on: the mark says which file (by inode) and size
belong to which offsets. A start makes a mark, and so does the beginning of each new file.

DIRECTORY/
  log, log.1   as silo.model.log says
  log.mark     JSON: inode, size, offsets of stdout and stderr
  log.next     the new file while it takes the place of the old one
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

import msgspec

from silo.isolation import run_files
from silo.model.log import MAX_PAYLOAD_BYTES, STDERR, STDOUT, encode_record, parse_records

log = logging.getLogger(__name__)

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    inode: int
    size: int
    stdout: int = 0
    stderr: int = 0


class GuestLog:
    """Appends; with `maximum_bytes` the file becomes `log.1` when it is full. A full disk costs output, never the container."""

    def __init__(self, directory: Path, maximum_bytes: int) -> None:
        self._directory = directory
        self._path = directory / "log"
        self._maximum = maximum_bytes
        self._offsets = {STDOUT: 0, STDERR: 0}
        self._file = -1
        self._size = 0
        self.lost_bytes = 0

    @property
    def offsets(self) -> tuple[int, int]:
        """What is written of stdout and stderr, from the mark's start on."""
        return self._offsets[STDOUT], self._offsets[STDERR]

    def begin(self) -> None:
        """A container starts: its streams begin at 0. Raises OSError."""
        self._reopen()
        self._offsets = {STDOUT: 0, STDERR: 0}
        self._mark(os.fstat(self._file).st_ino, self._size)

    def resume(self) -> None:
        """A daemon has come again: count what the former one has written. Raises OSError."""
        mark = run_files.load(self._directory / "log.mark", Mark)
        fresh = self._directory / "log.next"
        if mark is not None and fresh.exists() and fresh.stat().st_ino == mark.inode:
            self._exchange(fresh)
        self._reopen()
        if mark is None or os.fstat(self._file).st_ino != mark.inode:
            return
        self._offsets = {STDOUT: mark.stdout, STDERR: mark.stderr}
        at = mark.size
        with self._path.open("rb") as records:
            records.seek(at)
            data = b""
            while piece := records.read(4 << 20):
                data += piece
                end = 0
                for stream, _, payload, end in parse_records(data):  # noqa: B007 - the last one is kept
                    self._offsets[stream] += len(payload)
                at += end
                data = data[end:]
        if at < self._size:
            # a record that its writer did not come to the end of
            os.ftruncate(self._file, at)
            self._size = at

    def append(self, stream: int, payload: bytes) -> None:
        for start in range(0, len(payload), MAX_PAYLOAD_BYTES):
            self._append(stream, payload[start : start + MAX_PAYLOAD_BYTES])

    def _append(self, stream: int, payload: bytes) -> None:
        record = encode_record(stream, time.time_ns(), payload)
        if self._maximum and self._size and self._size + len(record) > self._maximum:
            try:
                self._rotate()
            except OSError as error:
                log.warning("%s: %s", self._path, error)
        written = 0
        with contextlib.suppress(OSError):
            written = os.write(self._file, record)
        # what is lost is counted too: the guest must not send it again
        self._offsets[stream] += len(payload)
        if written == len(record):
            self._size += written
            return
        self.lost_bytes += len(payload)
        if written:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)

    def _rotate(self) -> None:
        fresh = self._directory / "log.next"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, _FLAGS | os.O_EXCL, 0o600)
        # the mark comes first: whoever finds it and this file knows that nothing has been written since
        self._mark(os.fstat(descriptor).st_ino, 0)
        self._exchange(fresh)
        os.close(self._file)
        self._file, self._size = descriptor, 0

    def _exchange(self, fresh: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(self._directory / "log.1")
        fresh.rename(self._path)

    def _mark(self, inode: int, size: int) -> None:
        stdout, stderr = self.offsets
        run_files.save(self._directory / "log.mark", Mark(inode=inode, size=size, stdout=stdout, stderr=stderr))

    def _reopen(self) -> None:
        self.close()
        self._file = os.open(self._path, _FLAGS, 0o600)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
