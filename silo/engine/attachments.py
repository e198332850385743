"""Attachments: a client's two-way connection to a container's main program or to an exec.

The output of a main program comes out of its log, so a slow or vanished client never holds the program up, and none of it is
lost when the daemon dies. An exec's output comes straight from its pipes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from silo.engine.descriptors import Reader, Writer
from silo.engine.logs import follow_output, log_end, read_log
from silo.engine.ports import RunningExec
from silo.engine.roster import Live
from silo.errors import SiloError
from silo.model.log import STDERR, STDOUT


class Attachment(Protocol):
    """`terminal`: the output is one raw stream. Input and output are independent of one another."""

    terminal: bool

    def output(self) -> AsyncIterator[tuple[int, bytes]]: ...
    async def write(self, data: bytes) -> None: ...
    async def close_input(self) -> None: ...
    def close(self) -> None: ...


class ContainerAttachment:
    """To a container's main program, before or after its start."""

    def __init__(
        self,
        live: Live,
        directory: Path,
        *,
        open_input: Callable[[], Awaitable[int]] | None,
        end_input: Callable[[], Awaitable[None]],
        streams: frozenset[int],
        history: bool,
        follow: bool,
    ) -> None:
        self.terminal = live.record.config.tty
        self._live = live
        self._directory = directory
        self._open_input = open_input
        self._end_input = end_input
        self._streams = streams
        self._history = history
        self._follow = follow
        self._ended_before = live.ended_runs
        self._offset = 0 if history else log_end(directory)
        self._writer: Writer | None = None

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._history and not self._follow:
            async for record in read_log(
                self._live, self._directory, stdout=STDOUT in self._streams, stderr=STDERR in self._streams
            ):
                yield record.stream, record.payload
        if not self._follow:
            return
        records = follow_output(self._live, self._directory, offset=self._offset, ended_before=self._ended_before)
        async for record in records:
            if record.stream in self._streams:
                yield record.stream, record.payload

    async def _input(self) -> Writer | None:
        """The program's input, as soon as the program runs; None when it has ended before."""
        while self._writer is None and self._open_input is not None:
            if self._live.ended_runs > self._ended_before:
                return None
            if self._live.record.state.pid:
                with suppress(SiloError):
                    self._writer = Writer(await self._open_input())
                    break
                return None
            await self._live.changed.wait()
        return self._writer

    async def write(self, data: bytes) -> None:
        if (writer := await self._input()) is not None:
            await writer.write(data)

    async def close_input(self) -> None:
        """The client sent end of file. It reaches the program if this container's input is of the once-only kind."""
        if self._open_input is None or await self._input() is None:
            return
        self.close()
        if self._live.record.config.stdin_once and not self.terminal:
            with suppress(SiloError):
                await self._end_input()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class ExecAttachment:
    """To a program started by exec; owns its descriptors."""

    def __init__(self, running: RunningExec) -> None:
        streams = running.streams
        self.terminal = streams.terminal is not None
        fds = {STDOUT: streams.terminal if self.terminal else streams.stdout, STDERR: streams.stderr}
        self._readers = {stream: Reader(fd) for stream, fd in fds.items() if fd is not None}
        to_program = streams.terminal if streams.terminal is not None else streams.stdin
        self._writer = Writer(to_program) if to_program is not None else None

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(8)

        async def pump(stream: int, reader: Reader) -> None:
            while data := await reader.read():
                await queue.put((stream, data))
            await queue.put((stream, b""))

        pumps = [asyncio.create_task(pump(stream, reader)) for stream, reader in self._readers.items()]
        try:
            open_streams = len(pumps)
            while open_streams:
                stream, data = await queue.get()
                if data:
                    yield stream, data
                else:
                    open_streams -= 1
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for reader in self._readers.values():
                if not self.terminal:
                    reader.close()

    async def write(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def close_input(self) -> None:
        if self._writer is not None and not self.terminal:
            self._writer.close()

    def close(self) -> None:
        """Give every descriptor back; a terminal's hang-up reaches the program."""
        if self.terminal:
            if self._writer is not None:
                self._writer.close()
            return
        if self._writer is not None:
            self._writer.close()
        for reader in self._readers.values():
            reader.close()
