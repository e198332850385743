"""QEMU's machine protocol (QMP): commands with replies, events, descriptors passed along. One JSON object a line.

Source: QEMU's docs/interop/qmp-spec.rst. A guest that has broken out of its VM is QEMU, so what comes from here is untrusted
like everything of the guest's: lines are bounded, a reply is awaited for a limited time, and nothing is done because of an event
but what the caller decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from silo.errors import GuestError, HostError, SiloError, Unavailable

MAXIMUM_LINE_BYTES = 1 << 20
COMMAND_LIMIT_S = 10.0

Json = dict[str, Any]
EventListener = Callable[[str, Json], None]
"""Called on the event loop with an event's name and data."""


class QmpClient:
    """One monitor connection. Commands may overlap; replies are matched by id.

    client = await QmpClient.connect(ours, on_event)
    await client.execute("cont")
    client.close()
    """

    def __init__(self, connection: socket.socket, on_event: EventListener | None = None) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._on_event = on_event
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._greeting: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._next = 0
        self._lost: SiloError | None = None
        self._closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)

    @classmethod
    async def connect(
        cls, connection: socket.socket, on_event: EventListener | None = None, *, limit_s: float = COMMAND_LIMIT_S
    ) -> QmpClient:
        """Await the greeting and leave the negotiation mode. Takes over the socket. Raises Unavailable, GuestError."""
        client = cls(connection, on_event)
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(client._greeting)
            await client.execute("qmp_capabilities", limit_s=limit_s)
        except TimeoutError:
            client.close()
            raise Unavailable(f"QEMU did not answer on its monitor within {limit_s:.0f} s") from None
        except BaseException:
            client.close()
            raise
        return client

    async def execute(
        self, command: str, *, descriptors: Sequence[int] = (), limit_s: float = COMMAND_LIMIT_S, **arguments: object
    ) -> Any:
        """One command; answers what it returned. Argument names are QMP's with `_` for `-`.

        `descriptors` go with the message (for `getfd`, `add-fd`). Raises HostError (QEMU refused), Unavailable (no answer in
        time, or it has ended), GuestError (it speaks something else).
        """
        if self._lost is not None:
            raise self._lost
        self._next += 1
        message: Json = {"execute": command, "id": self._next}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        number = self._next
        try:
            async with asyncio.timeout(limit_s):
                await self._send(json.dumps(message).encode() + b"\n", descriptors)
                return await future
        except TimeoutError:
            raise Unavailable(f"QEMU did not answer {command} within {limit_s:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        view = memoryview(data)
        try:
            if descriptors:
                # With the first byte; a monitor's line fits into an empty socket buffer.
                sent = socket.send_fds(self._socket, [data], list(descriptors))
                view = view[sent:]
            if view:
                await asyncio.get_running_loop().sock_sendall(self._socket, view)
        except OSError as error:
            raise Unavailable("QEMU has ended", details=str(error)) from error

    async def wait_closed(self) -> None:
        """Until QEMU has closed the connection, as it does when it ends."""
        await self._closed.wait()

    def close(self) -> None:
        """Leave; QEMU runs on."""
        self._lose(Unavailable("the connection to QEMU's monitor was closed"))

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(Unavailable("QEMU has ended"))
            return
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            untrusted_line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if not self._take(untrusted_line):
                return
        if len(self._buffer) > MAXIMUM_LINE_BYTES:
            self._lose(GuestError(f"QEMU's monitor sent a line of more than {MAXIMUM_LINE_BYTES} bytes"))

    def _take(self, untrusted_line: bytes) -> bool:
        """One line; False when the connection was given up for it."""
        if not untrusted_line.strip():
            return True
        try:
            untrusted_message = json.loads(untrusted_line)
        except (ValueError, RecursionError):
            untrusted_message = None
        if not isinstance(untrusted_message, dict):
            self._lose(
                GuestError("QEMU's monitor sent something that is no QMP message", details=repr(untrusted_line[:200]))
            )
            return False
        if "QMP" in untrusted_message:
            if not self._greeting.done():
                self._greeting.set_result(untrusted_message)
        elif "event" in untrusted_message:
            self._tell(untrusted_message)
        else:
            self._answer(untrusted_message)
        return True

    def _tell(self, untrusted_message: Json) -> None:
        name, data = untrusted_message["event"], untrusted_message.get("data", {})
        if self._on_event is not None and isinstance(name, str) and isinstance(data, dict):
            self._on_event(name, data)

    def _answer(self, untrusted_message: Json) -> None:
        number = untrusted_message.get("id")
        future = self._waiting.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            return
        if "error" in untrusted_message:
            untrusted_error = untrusted_message["error"]
            text = untrusted_error.get("desc") if isinstance(untrusted_error, dict) else None
            future.set_exception(HostError("QEMU refused a command", details=str(text)[:2000]))
        else:
            future.set_result(untrusted_message.get("return"))

    def _lose(self, reason: SiloError) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        with contextlib.suppress(OSError, RuntimeError):
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._closed.set()
        for future in (self._greeting, *self._waiting.values()):
            if not future.done():
                future.set_exception(reason)
        # Nobody may be waiting for the greeting any more; an exception that nobody fetches would be reported.
        self._greeting.exception()
