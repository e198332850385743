"""The daemon's end of the keeper's socket: requests with replies, and events (protocol in keeper.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from silo.errors import HostError, Unavailable
from silo.host.run import start_detached
from silo.isolation.process import keeper
from silo.isolation.process.keeper_clients import MAXIMUM_PACKET_BYTES

_MAXIMUM_DESCRIPTORS = 16


class Reply(NamedTuple):
    """`values` are the reply's fields, `descriptors` belong to the caller."""

    values: dict[str, Any]
    descriptors: list[int]


def keeper_pid(socket_path: Path) -> int | None:
    """The process that keeps this run directory, or None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(socket_path))
        except OSError:
            return None
        # asked, because the socket's own credentials are those of the daemon that made it
        probe.settimeout(10)
        try:
            probe.send(b'{"op": "hello", "id": 0}')
            return int(json.loads(probe.recv(MAXIMUM_PACKET_BYTES))["pid"])
        except (OSError, ValueError, KeyError):
            return None


class KeeperClient:
    """One connection. `on_event` and `on_lost` are called on the event loop."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._next = 0
        self.pid = 0
        self._greeted = False
        """Losing a keeper that never greeted us is not a loss."""

    async def open(self, socket_path: Path, log_path: Path) -> dict[str, Any]:
        """Connect to the keeper, started if there is none; answers its greeting."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(socket_path))
        except OSError:
            connection.close()
            connection = await asyncio.to_thread(_start_keeper, socket_path, log_path)
        try:
            greeting = await self._greet(connection)
        except Unavailable:
            # It was about to end when we connected.
            greeting = await self._greet(await asyncio.to_thread(_start_keeper, socket_path, log_path))
        if greeting["version"] != keeper.PROTOCOL_VERSION:
            raise HostError(
                f"the running keeper speaks protocol {greeting['version']}, this daemon {keeper.PROTOCOL_VERSION}",
                hint="stop all containers with the version of Silo that started them, then start this one",
            )
        self.pid = int(greeting["pid"])
        self._greeted = True
        return greeting

    async def _greet(self, connection: socket.socket) -> dict[str, Any]:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._greeted = False
        self._socket = connection
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)
        return (await self.request("hello")).values

    def close(self) -> None:
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the connection to the keeper was closed"))
        self._replies.clear()

    async def request(self, op: str, descriptors: Sequence[int] = (), **fields: object) -> Reply:
        """Ask and await the reply. Raises HostError (refused by the keeper), Unavailable (it is gone)."""
        reply = await self.begin(op, descriptors, **fields)
        if "error" in reply.values:
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise HostError(f"the keeper could not {op}", details=str(reply.values["error"]))
        return reply

    def begin(self, op: str, descriptors: Sequence[int] = (), **fields: object) -> asyncio.Future[Reply]:
        """Send at once; the future gives the reply as it came."""
        if self._socket is None:
            raise Unavailable("the keeper is not running")
        self._next += 1
        message = json.dumps({"op": op, "id": self._next, **fields}).encode()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[self._next] = future
        try:
            socket.send_fds(self._socket, [message], list(descriptors))
        except OSError as error:
            del self._replies[self._next]
            raise Unavailable("the keeper does not answer", details=str(error)) from error
        return future

    def _readable(self) -> None:
        for _ in range(64):
            if self._socket is None:
                return
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, MAXIMUM_PACKET_BYTES, _MAXIMUM_DESCRIPTORS, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self.close()
                if self._greeted:
                    self._on_lost()
                return
            self._dispatch(json.loads(data), descriptors)

    def _dispatch(self, message: dict[str, Any], descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if "event" in message:
            self._on_event(message)
            return
        waiting = self._replies.pop(message["id"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(Reply(message, descriptors))
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _start_keeper(socket_path: Path, log_path: Path) -> socket.socket:
    """Bind, listen, hand the listening socket over: connecting then succeeds at once."""
    with contextlib.suppress(FileNotFoundError):
        socket_path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(socket_path))
        socket_path.chmod(0o600)
        listener.listen(16)
        argv = [sys.executable, "-I", "-S", keeper.__file__, str(listener.fileno())]
        start_detached(argv, log=log_path, pass_fds=[listener.fileno()])
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(socket_path))
    return connection
