"""The host's client of a guest's agent (docs/guest-protocol.md): requests, streams and events over one connected socket.

    client = AgentClient(on_event=handle, on_lost=reconnect_later)
    greeting = await client.connect(connection)
    await client.request("mount", {"mounts": [...]})
    program = await client.run("c1", config, stdin=False)
    async for piece in program.stdout: ...
    code = (await program.wait()).code
    await client.release("c1")

A lost connection fails the requests on their way (Unavailable) and keeps programs and their streams: `connect` with a new socket
goes on where they were. A daemon that starts anew finds the programs in the greeting and takes them over by `adopt`. A guest that
breaks the protocol is told to `on_lost` as a ProtocolError: end its machine, nothing that it says can be relied on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from silo.errors import SiloError, Unavailable
from silo.isolation.vm.agent_streams import GuestReader, GuestWriter
from silo.isolation.vm.answers import (
    Event,
    ExitEvent,
    Greeting,
    Nothing,
    decode,
    decode_event,
    decode_reply,
)
from silo.model.guest_frames import (
    CREDIT,
    DATA,
    END,
    EVENT,
    HELLO,
    MAXIMUM_MESSAGE_BYTES,
    MAXIMUM_STREAM,
    REPLY,
    REQUEST,
    SYNC,
    VERSION,
    Frame,
    FrameParser,
    ProtocolError,
    SyncFinder,
    encode_end,
    encode_message,
    parse_credit,
    parse_data,
    parse_end,
)

_UNREAD_LIMIT_BYTES = 8 << 20
"""What the guest lets wait without reading it; more means that it makes us talk and does not listen."""
_DEFAULT_TIMEOUT_S = 30.0

T = TypeVar("T")


class AgentClient:
    """`on_event` and `on_lost` are called on the event loop; `on_lost` gets the reason if there is one."""

    def __init__(
        self,
        on_event: Callable[[Event], None] = lambda _: None,
        on_lost: Callable[[SiloError | None], None] = lambda _: None,
    ) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._wire: _Wire | None = None
        self._parser = FrameParser()
        self._finder: SyncFinder | None = None
        self._greeting: asyncio.Future[Greeting] | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._abandoned: set[int] = set()
        self._next_call = 0
        self._next_stream = 0
        self._readers: dict[int, GuestReader] = {}
        self._writers: dict[int, GuestWriter] = {}
        self._closed_streams: set[int] = set()

    # --- connection

    @property
    def is_connected(self) -> bool:
        return self._wire is not None and self._greeting is None

    async def connect(self, connection: socket.socket, *, timeout_s: float = _DEFAULT_TIMEOUT_S) -> Greeting:
        """Begin a session; the socket is the client's from now on. Raises Unavailable, ProtocolError, GuestError."""
        self._disconnect(Unavailable("the connection to the guest was replaced"))
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        nonce = os.urandom(16)
        self._finder = SyncFinder(nonce)
        self._parser.reset()
        self._greeting = loop.create_future()
        _, self._wire = await loop.create_connection(lambda: _Wire(self), sock=connection)
        try:
            self._wire.send(SYNC + nonce + encode_message(HELLO, 0, {"versions": [VERSION]}))
            async with asyncio.timeout(timeout_s):
                greeting = await self._greeting
            if greeting.version != VERSION:
                raise Unavailable(f"the guest's agent does not speak version {VERSION} of the protocol")
            self._greeting = None
            self._resume(greeting)
        except TimeoutError:
            self._disconnect(None)
            raise Unavailable(f"the guest's agent did not greet within {timeout_s} s") from None
        except BaseException:
            self._disconnect(None)
            raise
        return greeting

    def _resume(self, greeting: Greeting) -> None:
        inputs = {task.input.stream: task.input for task in greeting.tasks if task.input}
        outputs = [output.stream for task in greeting.tasks for output in task.outputs]
        self._next_stream = max(self._next_stream, *inputs, *outputs, 0)
        for number, writer in self._writers.items():
            if number in inputs:
                writer.begin(inputs[number])
            else:
                writer.fail(Unavailable("the guest has ended this stream"))
        for number, reader in self._readers.items():
            if number in outputs:
                reader.begin()
            else:
                reader.fail(Unavailable("the guest has ended this stream"))

    def close(self) -> None:
        """End the session; what waits for the guest fails with Unavailable. Idempotent."""
        gone = Unavailable("the connection to the guest was closed")
        self._disconnect(gone)
        for stream in (*self._readers.values(), *self._writers.values()):
            stream.fail(gone)

    def _disconnect(self, reason: SiloError | None) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        failure = reason or Unavailable("the connection to the guest is lost")
        greeting, self._greeting = self._greeting, None
        waiters: list[asyncio.Future[Any]] = [*self._calls.values(), *([greeting] if greeting else [])]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(failure)
                # whoever waits may have been cancelled
                waiting.exception()
        self._calls.clear()
        self._abandoned.clear()
        for stream in (*self._readers.values(), *self._writers.values()):
            if stream.passing or isinstance(failure, ProtocolError):
                stream.fail(failure)
        for writer in self._writers.values():
            writer.suspend()

    def lost(self, wire: _Wire, reason: SiloError | None) -> None:
        """Called by the wire."""
        if wire is self._wire:
            greeting = self._greeting
            self._disconnect(reason)
            if greeting is None:
                self._on_lost(reason)

    # --- requests

    async def request(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        answer: type[T] = Nothing,  # type: ignore[assignment]
        timeout_s: float = _DEFAULT_TIMEOUT_S,
        program: str = "",
    ) -> T:
        """Raises Unavailable (lost, late), ProtocolError, and what the agent's refusal means (answers.translate_error)."""
        return await self.finish(self.begin(name, params), name, answer, timeout_s=timeout_s, program=program)

    def begin(self, name: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request; what belongs to it can be sent right behind. To be followed by `finish` with this number."""
        if self._wire is None or self._greeting is not None:
            raise Unavailable("the guest is not connected")
        number = self._next_call = self._next_call % MAXIMUM_STREAM + 1
        if number in self._calls:
            raise Unavailable("the guest answers too late")
        try:
            frames = encode_message(REQUEST, number, {"do": name, "with": msgspec.to_builtins(params or {})})
        except ValueError as error:
            raise Unavailable(f"the request {name} is longer than {MAXIMUM_MESSAGE_BYTES} bytes") from error
        self._calls[number] = asyncio.get_running_loop().create_future()
        self._wire.send(frames)
        return number

    def begin_unanswered(self, name: str, params: Mapping[str, Any]) -> None:
        """The same, where nobody waits for the reply."""
        number = self.begin(name, params)
        del self._calls[number]
        self._abandoned.add(number)

    async def finish(
        self, number: int, name: str, answer: type[T], *, timeout_s: float = _DEFAULT_TIMEOUT_S, program: str = ""
    ) -> T:
        waiting = self._calls.get(number)
        if waiting is None:
            raise Unavailable("the connection to the guest is lost")
        try:
            async with asyncio.timeout(timeout_s):
                untrusted_reply = await waiting
        except TimeoutError:
            raise Unavailable(f"the guest did not {name.replace('_', ' ')} within {timeout_s} s") from None
        finally:
            # a time limit or a cancelled caller cancels the future too
            if self._calls.pop(number, None) is not None and (waiting.cancelled() or not waiting.done()):
                self._abandoned.add(number)
        try:
            return decode_reply(untrusted_reply, answer, name, program)
        except ProtocolError as error:
            if self._wire is not None:
                self.lost(self._wire, error)
            raise

    # --- streams

    def new_stream(self) -> int:
        """A number that no stream has, and that the guest does not think one has."""
        while True:
            number = self._next_stream = self._next_stream % MAXIMUM_STREAM + 1
            if number not in self._readers and number not in self._writers and number not in self._closed_streams:
                return number

    def open_reader(self, number: int, *, offset: int = 0, passing: bool = False) -> GuestReader:
        """`offset`: what the host has of the stream already, and nobody will ask for again."""
        reader = GuestReader(number, self.send, offset=offset, passing=passing)
        self._readers[number] = reader
        reader.begin()
        return reader

    def add_writer(self, writer: GuestWriter) -> GuestWriter:
        self._writers[writer.number] = writer
        return writer

    def open_writer(self, number: int, *, passing: bool = False) -> GuestWriter:
        return self.add_writer(GuestWriter(number, self.send, self.drain, passing=passing))

    def refuse(self, number: int) -> None:
        """Nobody reads this stream any more; its program goes on."""
        reader = self._readers.pop(number, None)
        if reader is not None:
            reader.fail(Unavailable("the stream is not read any more"))
            if not reader.is_over:
                # what is on its way is passed over until the guest has heard of it
                self._closed_streams.add(number)
                self.send(encode_end(number, 0))

    def forget_streams(self, *numbers: int, settled: bool = False) -> None:
        """Their program is released, or was not started. `settled`: the guest has forgotten them, nothing can come."""
        gone = Unavailable("the stream has ended")
        for number in numbers:
            for stream in (self._readers.pop(number, None), self._writers.pop(number, None)):
                if stream is not None:
                    stream.fail(gone)
                    self._closed_streams.add(number)
            if settled:
                self._closed_streams.discard(number)

    def send(self, frames: bytes) -> None:
        if self._wire is not None and self._greeting is None:
            self._wire.send(frames)

    def drain(self) -> asyncio.Future[None] | None:
        """To be awaited before more is sent; None when more can be sent at once."""
        return self._wire.drain() if self._wire is not None else None

    # --- frames

    def received(self, untrusted_data: bytes) -> None:
        """Called by the wire. Raises ProtocolError."""
        if self._finder is not None:
            found = self._finder.feed(untrusted_data)
            if found is None:
                return
            self._finder = None
            untrusted_data = found[1]
        for frame in self._parser.feed(untrusted_data):
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        if self._greeting is not None:
            if frame.type != HELLO or self._greeting.done():
                raise ProtocolError("the guest's agent speaks before it has greeted")
            self._greeting.set_result(decode(frame.payload, Greeting))
        elif frame.type == DATA:
            self._handle_data(frame)
        elif frame.type == END:
            if frame.stream in self._readers:
                self._readers[frame.stream].take_end(parse_end(frame.payload))
            elif frame.stream in self._closed_streams:
                self._closed_streams.discard(frame.stream)
            else:
                raise ProtocolError(f"the guest ended the unknown stream {frame.stream}")
        elif frame.type == CREDIT:
            acknowledged, limit = parse_credit(frame.payload)
            if frame.stream in self._writers:
                self._writers[frame.stream].credit(acknowledged, limit)
            elif frame.stream not in self._closed_streams:
                raise ProtocolError(f"the guest gave credit for the unknown stream {frame.stream}")
        elif frame.type == REPLY:
            self._handle_reply(frame)
        elif frame.type == EVENT:
            self._on_event(decode_event(frame.payload))
        else:
            raise ProtocolError(f"the guest's agent sent a frame of type {frame.type}")

    def _handle_data(self, frame: Frame) -> None:
        offset, data = parse_data(frame.payload)
        if frame.stream in self._readers:
            self._readers[frame.stream].take(offset, data)
        elif frame.stream not in self._closed_streams:
            raise ProtocolError(f"the guest sent data of the unknown stream {frame.stream}")

    def _handle_reply(self, frame: Frame) -> None:
        waiting = self._calls.get(frame.stream)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame.payload)
        elif frame.stream in self._abandoned:
            self._abandoned.discard(frame.stream)
        else:
            raise ProtocolError("the guest's agent answered what nobody asked")


class _Wire(asyncio.Protocol):
    """The socket of one session."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has classes of its own
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._client.received(data)
            if self._transport is not None and self._transport.get_write_buffer_size() > _UNREAD_LIMIT_BYTES:
                raise ProtocolError("the guest's agent does not read what it asks for")
        except ProtocolError as error:
            self._client.lost(self, error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        reason = Unavailable("the connection to the guest is lost", details=str(exc)) if exc else None
        self._client.lost(self, reason)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def send(self, frames: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def drain(self) -> asyncio.Future[None] | None:
        # one future for all who wait: a cancelled one must not cancel it
        return asyncio.shield(self._writable) if self._writable is not None else None

    def abort(self) -> None:
        self._release()
        if self._transport is not None:
            self._transport.abort()


__all__ = ["AgentClient", "Event", "ExitEvent", "Greeting"]
