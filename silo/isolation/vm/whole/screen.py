"""A machine's screen by VNC: the daemon listens, and hands each connection over to QEMU, which listens nowhere.

Whoever may open the socket sees the screen: there is no password, the socket is root's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from silo.errors import SiloError
from silo.isolation.vm.machine import listen_at
from silo.isolation.vm.qmp import QmpClient

SOCKET_NAME = "screen.sock"


class Screen:
    """`open` listens at DIRECTORY/screen.sock; `connect` is the same without a socket of the file system."""

    def __init__(self, directory: Path, monitor: QmpClient) -> None:
        self._directory = directory
        self._monitor = monitor
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    def open(self) -> None:
        self._listener = listen_at(self._directory, SOCKET_NAME)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            task = asyncio.ensure_future(self._hand_over(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(SiloError):
            await self._add(connection)

    async def _add(self, connection: socket.socket) -> None:
        self._number += 1
        name = f"screen-{self._number}"
        await self._monitor.execute("getfd", descriptors=[connection.fileno()], fdname=name)
        await self._monitor.execute("add_client", protocol="vnc", fdname=name, skipauth=True)

    async def connect(self) -> socket.socket:
        """A stream of RFB, nonblocking. Raises HostError, Unavailable."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            await self._add(theirs)
            undo.pop_all()
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """Connections that were handed over live on."""
        for task in self._tasks:
            task.cancel()
        if self._listener is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
