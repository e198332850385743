"""Bytes on their way from a client to a handler: a bounded buffer that stops the connection's reading when it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024


class ClientGone(Exception):
    """The client closed the connection before it had sent everything."""


class Body:
    """A request's body, or what a hijacking client sends. One reader."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._discarding = False
        self.ended = False
        self.on_first_read: Callable[[], None] | None = None

    def push(self, data: bytes) -> None:
        if self._discarding or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Nobody will read the rest."""
        self._discarding = True
        self._chunks.clear()
        self._size = 0
        self._relieve()

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises ClientGone."""
        if self.on_first_read is not None:
            self.on_first_read()
            self.on_first_read = None
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size <= LOW_WATER_BYTES:
            self._relieve()
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    def _relieve(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
