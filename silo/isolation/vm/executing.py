"""Further programs in a container of a VM: the agent runs them, and their streams become descriptors of the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import socket
from collections.abc import Coroutine
from typing import Any

from silo.errors import SiloError
from silo.isolation.vm.programs import Guest, GuestProgram
from silo.isolation.vm.pumps import copy_in, copy_out
from silo.model.exit_codes import KILLED
from silo.model.runtime import ExecStreams

_LAST_OUTPUT_S = 5.0


class VmExec:
    """See silo.engine.ports.RunningExec. `pid` is the guest's number."""

    def __init__(self, guest: Guest, program: GuestProgram, *, terminal: bool) -> None:
        self.pid = program.pid
        self._guest = guest
        self._program = program
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.streams = self._open_terminal() if terminal else self._open_pipes()
        self._spawn(self._watch())

    def _open_terminal(self) -> ExecStreams:
        """A socket pair: the terminal itself is in the guest, which gets what is written here and whose output comes back."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._spawn(self._serve_terminal(ours))
        return ExecStreams(terminal=theirs.detach())

    def _open_pipes(self) -> ExecStreams:
        given: dict[str, int] = {}
        for name in ("stdout", "stderr"):
            reader = getattr(self._program, name)
            if reader is not None:
                given[name], write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                self._spawn(self._serve_output(reader, write))
        if self._program.stdin is not None:
            read, given["stdin"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._spawn(_closing(read, copy_in(read, self._program.stdin)))
        return ExecStreams(**given)

    async def _serve_output(self, reader: Any, descriptor: int) -> None:
        if not await _closing(descriptor, copy_out(reader, descriptor)):
            self._guest.client.refuse(reader.number)

    async def _serve_terminal(self, ours: socket.socket) -> None:
        """Its hang-up reaches the program, as that of a terminal does."""
        program, descriptor = self._program, ours.fileno()
        assert program.stdout is not None
        with ours:
            coming = self._spawn(copy_in(descriptor, program.stdin)) if program.stdin is not None else None
            going = self._spawn(copy_out(program.stdout, descriptor))
            if coming is not None:
                await asyncio.wait({coming, going}, return_when=asyncio.FIRST_COMPLETED)
                if not going.done() and not self._ended.done():
                    await self.signal(signals.SIGHUP)
            await going
            if coming is not None:
                coming.cancel()

    async def _watch(self) -> None:
        exit = await self._program.wait()
        self.end(exit.code)
        others = {task for task in self._tasks if task is not asyncio.current_task()}
        # descendants may hold the output for as long as they like; the agent keeps it until it is read
        readers = [reader for reader in (self._program.stdout, self._program.stderr) if reader is not None]
        while others and not all(reader.is_over for reader in readers):
            others = (await asyncio.wait(others, timeout=_LAST_OUTPUT_S))[1]
        with contextlib.suppress(SiloError):
            await self._guest.release(self._program)
        for task in others:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=f"exec-{self._program.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end(self, code: int = KILLED) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def abandon(self) -> None:
        """Its VM is gone: descriptors end, and so does it."""
        self.end()
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def resize(self, rows: int, columns: int) -> None:
        if not self._ended.done():
            with contextlib.suppress(SiloError):
                await self._guest.resize(self._program.name, rows, columns)

    async def signal(self, signal: int) -> None:
        if not self._ended.done():
            with contextlib.suppress(SiloError):
                await self._guest.signal(self._program.name, signal)


async def _closing(descriptor: int, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    finally:
        os.close(descriptor)
