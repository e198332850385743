"""The host's side of the launcher protocol: a client of asyncio for launchers whose socket is a file of this host.

One connection a request, as the protocol wants. A launcher that answers wrongly or not at all is a GuestError of its own container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from silo.errors import GuestError
from silo.isolation.launcher_messages import (
    MAXIMUM_MESSAGE_BYTES,
    Answer,
    ConsoleEvent,
    Exited,
    RunRequest,
    WindowsProcess,
    decode_answer,
    encode_configure,
    encode_list,
    encode_ping,
    encode_resize,
    encode_run,
    encode_save,
    encode_shutdown,
    encode_signal,
    encode_start,
    expect_done,
    expect_processes,
    expect_started,
)

_ANSWER_PATIENCE_S = 30.0
_START_PATIENCE_S = 120.0
_BUSY_PAUSE_S = 0.01


class RunningProgram:
    """A started program. Closing it leaves the program running."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection

    async def wait(self) -> int:
        """The 32-bit exit code. Raises GuestError if the launcher went away."""
        answer = await _receive(self._connection)
        if not isinstance(answer, Exited):
            raise GuestError("the container's launcher did not say how the program ended")
        return answer.code

    def close(self) -> None:
        self._connection.close()


class LauncherClient:
    """Requests to the launcher of one container, whose socket lies at `path`. Holds nothing open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def run(self, request: RunRequest, fds: Sequence[int] = ()) -> RunningProgram:
        """Start a program on copies of `fds`: none with FLAG_MAIN, a terminal with FLAG_TTY, else input, output, error.

        Raises ProcessStartFailed, InvalidRequest, GuestError.
        """
        message = encode_run(request)
        connection = await self.connect()
        try:
            answer = await _exchange(connection, message, fds, timeout_s=_START_PATIENCE_S)
            pid = expect_started(answer)
        except BaseException:
            connection.close()
            raise
        return RunningProgram(pid, connection)

    async def start_parked(self, *, no_flush: bool = False) -> int:
        """The main program, made by `run` with FLAG_PARK, goes on: its Windows process id. Raises GuestError if none is parked."""
        return expect_started(await self._ask(encode_start(no_flush=no_flush)))

    async def signal(self, pid: int, event: int) -> None:
        """To the program that was started as `pid`, 0 being the main one. Raises GuestError."""
        await self._order(encode_signal(ConsoleEvent(event), pid), "deliver the signal")

    async def resize(self, pid: int, columns: int, rows: int) -> None:
        """Raises InvalidRequest, GuestError."""
        await self._order(encode_resize(columns, rows, pid), "resize the terminal")

    async def processes(self) -> tuple[WindowsProcess, ...]:
        """Raises GuestError."""
        return expect_processes(await self._ask(encode_list()))

    async def configure(self, computer_name: str) -> None:
        """Raises InvalidRequest, GuestError."""
        await self._order(encode_configure(computer_name), "take its computer name")

    async def shutdown(self, exit_code: int) -> None:
        """Ask the silo to end; its end is the keeper's to see. Raises GuestError if there is no launcher."""
        connection = await self.connect()
        with contextlib.closing(connection):
            _send(connection, encode_shutdown(exit_code), ())

    async def ping(self, timeout_s: float) -> None:
        """Wait until programs can be started. Raises GuestError."""
        await self._order(encode_ping(), "become ready", timeout_s=timeout_s)

    async def save(self) -> None:
        """Write the registry to its files. Raises GuestError."""
        await self._order(encode_save(), "save its registry")

    async def _order(self, message: bytes, purpose: str, *, timeout_s: float = _ANSWER_PATIENCE_S) -> None:
        expect_done(await self._ask(message, timeout_s=timeout_s), purpose)

    async def _ask(self, message: bytes, *, timeout_s: float = _ANSWER_PATIENCE_S) -> Answer:
        connection = await self.connect()
        with contextlib.closing(connection):
            return await _exchange(connection, message, (), timeout_s=timeout_s)

    async def connect(self) -> socket.socket:
        """A connection (nonblocking) for a request of the caller's own. Raises GuestError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(_ANSWER_PATIENCE_S):
                while True:
                    try:
                        self._connect_once(connection)
                    except BlockingIOError:  # the backlog is full
                        await asyncio.sleep(_BUSY_PAUSE_S)
                    else:
                        return connection
        except TimeoutError as error:
            connection.close()
            raise GuestError("the container's launcher accepts no connection") from error
        except OSError as error:
            connection.close()
            raise GuestError("the container has no launcher any more", details=str(error)) from error
        except BaseException:
            connection.close()
            raise

    def _connect_once(self, connection: socket.socket) -> None:
        # by way of a descriptor, because socket addresses are at most 107 bytes long
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


async def _exchange(connection: socket.socket, message: bytes, fds: Sequence[int], *, timeout_s: float) -> Answer:
    _send(connection, message, fds)
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive(connection)
    except TimeoutError as error:
        raise GuestError(f"the container's launcher gave no answer within {timeout_s:g} s") from error


def _send(connection: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """One packet; a fresh connection has room for it."""
    try:
        socket.send_fds(connection, [message], list(fds))
    except OSError as error:
        raise GuestError("the container's launcher takes no request", details=str(error)) from error


async def _receive(connection: socket.socket) -> Answer:
    try:
        untrusted_data = await asyncio.get_running_loop().sock_recv(connection, MAXIMUM_MESSAGE_BYTES)
    except OSError as error:
        raise GuestError("the connection to the container's launcher broke", details=str(error)) from error
    if not untrusted_data:
        raise GuestError("the container's launcher went away")
    return decode_answer(untrusted_data)
