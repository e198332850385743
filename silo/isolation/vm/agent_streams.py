"""The host's ends of the byte streams of a guest: readers and writers with back-pressure that outlive a connection.

A reader holds one window of data at most; what its user has come back from is acknowledged, everything else the agent keeps and
sends again after a reconnection. A writer keeps what the agent has not written yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from silo.errors import SiloError, Unavailable
from silo.isolation.vm.answers import InputState
from silo.model.guest_frames import WINDOW_BYTES, ProtocolError, encode_credit, encode_data, encode_end, split_data

_STEP_BYTES = WINDOW_BYTES // 4

Send = Callable[[bytes], None]
"""Takes encoded frames; drops them while there is no connection."""


class _Stream:
    def __init__(self, number: int, send: Send, *, passing: bool) -> None:
        self.number = number
        self.passing = passing
        """Of one session only: it fails when the connection is lost."""
        self._send = send
        self._failure: SiloError | None = None
        self._changed = asyncio.Event()

    def fail(self, error: SiloError) -> None:
        if self._failure is None:
            self._failure = error
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class GuestReader(_Stream):
    """Bytes from the guest. For one task at a time."""

    def __init__(self, number: int, send: Send, *, offset: int = 0, passing: bool = False) -> None:
        super().__init__(number, send, passing=passing)
        self._chunks: deque[bytes] = deque()
        self._taken = offset
        self._handled = offset
        self._received = offset
        self._told = offset
        self._limit = offset
        self._end: int | None = None

    @property
    def offset(self) -> int:
        """How many bytes of the stream `read` has given, from its very beginning."""
        return self._taken

    @property
    def is_over(self) -> bool:
        """The guest has said that no more will come, and it has all been read."""
        return self._end == self._taken

    def begin(self) -> None:
        """A session has begun: say what is safe with us; the rest comes again, and what was taken of it is skipped."""
        self._chunks.clear()
        self._received = self._told = self._handled
        self._end = None
        self._limit = self._handled + WINDOW_BYTES
        self._send(encode_credit(self.number, self._handled, self._limit))

    async def read(self) -> bytes:
        """The next piece, at most 64 KiB; b"" at the end. Coming back acknowledges what was given before.

        Waits through a lost connection. Raises Unavailable (closed, or a passing stream's connection is lost), ProtocolError.
        """
        self.acknowledge()
        while not self._chunks:
            if self.is_over:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._wait()
        piece = self._chunks.popleft()
        self._taken += len(piece)
        return piece

    def acknowledge(self) -> None:
        """What `read` has given is safe: the agent may forget it."""
        self._handled = self._taken
        if self._handled - self._told >= _STEP_BYTES:
            self._told = self._handled
            self._limit = self._handled + WINDOW_BYTES
            self._send(encode_credit(self.number, self._handled, self._limit))

    def take(self, untrusted_offset: int, data: bytes) -> None:
        if untrusted_offset != self._received or self._end is not None or self._received + len(data) > self._limit:
            raise ProtocolError(
                f"the guest sent bytes of stream {self.number} at {untrusted_offset} instead of {self._received}"
            )
        self._received += len(data)
        data = data[max(0, self._taken - untrusted_offset) :]
        if not data:
            return
        if self._chunks and len(self._chunks[-1]) + len(data) <= 4096:
            # one byte a frame must not cost an object each
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._changed.set()

    def take_end(self, untrusted_offset: int) -> None:
        if untrusted_offset != self._received:
            raise ProtocolError(f"the guest ended stream {self.number} at {untrusted_offset}, not {self._received}")
        self._end = untrusted_offset
        self._changed.set()


class GuestWriter(_Stream):
    """Bytes to the guest. For one task at a time."""

    def __init__(
        self, number: int, send: Send, drain: Callable[[], asyncio.Future[None] | None], *, passing: bool
    ) -> None:
        super().__init__(number, send, passing=passing)
        self._drain = drain
        self._kept = bytearray()
        self._acknowledged = 0
        self._limit = WINDOW_BYTES
        self._closed = False
        self._connected = True

    @classmethod
    def adopt(cls, state: InputState, send: Send, drain: Callable[[], asyncio.Future[None] | None]) -> GuestWriter:
        """Of a program that an earlier daemon started: it goes on where the agent is."""
        writer = cls(state.stream, send, drain, passing=False)
        writer._acknowledged = state.received
        writer._closed = state.ended
        writer.begin(state)
        return writer

    @property
    def _sent(self) -> int:
        return self._acknowledged + len(self._kept)

    async def write(self, data: bytes) -> None:
        """Returns when all of it is on its way. Raises Unavailable."""
        view = memoryview(data)
        while view:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise Unavailable("the stream is closed")
            room = min(self._limit - self._sent, 65536) if self._connected else 0
            if room <= 0:
                await self._wait()
                continue
            piece = bytes(view[:room])
            view = view[room:]
            self._transmit(self._sent, piece)
            self._kept += piece
            waiting = self._drain()
            if waiting is not None:
                await waiting

    def _transmit(self, offset: int, data: bytes) -> None:
        for piece in split_data(data):
            self._send(encode_data(self.number, offset, piece))
            offset += len(piece)

    def close(self) -> None:
        """The end of the stream, after all that was written. Idempotent."""
        if not self._closed:
            self._closed = True
            if self._connected:
                self._send(encode_end(self.number, self._sent))
            self._changed.set()

    def suspend(self) -> None:
        self._connected = False

    def begin(self, untrusted_state: InputState) -> None:
        """A session has begun and this is what the agent has: the rest is sent again."""
        received, limit = untrusted_state.received, untrusted_state.limit
        if not self._acknowledged <= received <= self._sent or limit > received + WINDOW_BYTES:
            raise ProtocolError(f"the guest has {received} bytes of stream {self.number}, {self._sent} were sent")
        self._connected = True
        self._limit = max(limit, self._sent)
        lacking = bytes(self._kept[received - self._acknowledged :])
        if lacking:
            self._transmit(received, lacking)
        if self._closed and not untrusted_state.ended:
            self._send(encode_end(self.number, self._sent))
        self._changed.set()

    def credit(self, untrusted_acknowledged: int, untrusted_limit: int) -> None:
        acknowledged, limit = untrusted_acknowledged, untrusted_limit
        if not self._acknowledged <= acknowledged <= self._sent or limit > acknowledged + WINDOW_BYTES:
            raise ProtocolError(f"the guest acknowledged byte {acknowledged} of stream {self.number}")
        del self._kept[: acknowledged - self._acknowledged]
        self._acknowledged = acknowledged
        self._limit = max(self._limit, limit)
        self._changed.set()
