"""Read container logs: whole, in part, and following while the program writes.

The keeper appends to `log` and, when a size limit is set, moves it to `log.1` first; a reader keeps the file it has open and
goes on with the next one, so a rotation loses nothing that it had not read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from silo.engine.roster import Live
from silo.model.log import STDERR, STDOUT, parse_records

CHUNK_BYTES = 1 << 18


class LogRecord(msgspec.Struct, frozen=True):
    """A piece of output: stream 1 is stdout (and a terminal's output), 2 is stderr."""

    stream: int
    time_ns: int
    payload: bytes


class LogFile:
    """Sequential reader of one container's log, across rotation."""

    def __init__(self, directory: Path, *, offset: int = 0, from_oldest: bool = False) -> None:
        self._current = directory / "log"
        older = directory / "log.1"
        self._path = older if from_oldest and older.exists() else self._current
        self._fd: int | None = None
        self._offset = offset
        self._rest = b""

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self) -> list[LogRecord]:
        """The next records, [] when there are none now."""
        if self._fd is None and not self._open():
            return []
        assert self._fd is not None
        data = os.pread(self._fd, CHUNK_BYTES, self._offset)
        if not data:
            return self.read() if self._next_file() else []
        records, used = [], 0
        for stream, time_ns, payload, end in parse_records(data):
            records.append(LogRecord(stream, time_ns, payload))
            used = end
        self._offset += used
        return records

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def _next_file(self) -> bool:
        """Whether the open file has been rotated away, so that reading goes on in the current one."""
        assert self._fd is not None
        try:
            current = os.open(self._current, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if os.fstat(current).st_ino == os.fstat(self._fd).st_ino:
            os.close(current)
            return False
        os.close(self._fd)
        self._fd, self._offset, self._path = current, 0, self._current
        return True


def log_end(directory: Path) -> int:
    """The present size of the log: where an attachment begins that wants new output only."""
    try:
        return (directory / "log").stat().st_size
    except FileNotFoundError:
        return 0


def _history(log: LogFile, wanted: frozenset[int], since_ns: int, until_ns: int | None) -> Iterator[LogRecord]:
    while records := log.read():
        for record in records:
            if (
                record.stream in wanted
                and record.time_ns >= since_ns
                and (until_ns is None or record.time_ns <= until_ns)
            ):
                yield record


def _last_lines(records: Iterator[LogRecord], count: int) -> list[LogRecord]:
    """The records that hold the last `count` lines, the first one cut to begin at a line."""
    kept: deque[LogRecord] = deque()
    ends = 0
    for record in records:
        kept.append(record)
        ends += record.payload.count(b"\n")
        while kept and ends - kept[0].payload.count(b"\n") > count:
            ends -= kept.popleft().payload.count(b"\n")
    surplus = ends - count + (0 if not kept or kept[-1].payload.endswith(b"\n") else 1)
    while kept and surplus > 0:
        first = kept.popleft()
        lines = first.payload.count(b"\n")
        if lines <= surplus and kept:
            surplus -= lines
            continue
        payload = first.payload
        for _ in range(min(surplus, lines)):
            payload = payload.partition(b"\n")[2]
        kept.appendleft(LogRecord(first.stream, first.time_ns, payload))
        break
    return [record for record in kept if record.payload]


async def read_log(
    live: Live,
    directory: Path,
    *,
    stdout: bool,
    stderr: bool,
    since_ns: int = 0,
    until_ns: int | None = None,
    tail: int | None = None,
    follow: bool = False,
    running: bool = False,
) -> AsyncIterator[LogRecord]:
    """`docker logs`: history, then (follow) new records until the run ends."""
    wanted = frozenset(([STDOUT] if stdout else []) + ([STDERR] if stderr else []))
    ended_before = live.ended_runs
    with LogFile(directory, from_oldest=True) as log:
        history = _history(log, wanted, since_ns, until_ns)
        for record in history if tail is None else _last_lines(history, tail):
            yield record
        if not (follow and running):
            return
        async for record in _follow(live, log, ended_before):
            if until_ns is not None and record.time_ns > until_ns:
                return
            if record.stream in wanted and record.time_ns >= since_ns:
                yield record


async def follow_output(live: Live, directory: Path, *, offset: int, ended_before: int) -> AsyncIterator[LogRecord]:
    """Everything that is logged from `offset` on until a run ends that had not ended when `ended_before` was read."""
    with LogFile(directory, offset=offset) as log:
        async for record in _follow(live, log, ended_before):
            yield record


async def _follow(live: Live, log: LogFile, ended_before: int) -> AsyncIterator[LogRecord]:
    while True:
        over = live.ended_runs > ended_before
        records = log.read()
        for record in records:
            yield record
        if records:
            continue
        if over:
            return
        if live.ended_runs == ended_before:
            await live.changed.wait()
