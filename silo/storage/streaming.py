"""Between blocking generators, which belong in threads, and the asynchronous streams of the API."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from silo.errors import InvalidRequest, Unavailable
from silo.model.finishing import to_the_end

_CHUNK_BYTES = 256 * 1024
T = TypeVar("T")


async def stream(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The generator's bytes in chunks of a good size; the generator runs in threads and is closed in the end."""
    gathering: asyncio.Future[bytes] | None = None
    try:
        while True:
            gathering = asyncio.ensure_future(asyncio.to_thread(_gather, pieces))
            chunk = await asyncio.shield(gathering)
            if not chunk:
                break
            yield chunk
    finally:
        if gathering is not None and not gathering.done():
            # a caller that is cancelled waits for the thread: a generator that runs cannot be closed
            await asyncio.wait([gathering])
            gathering.exception()
        close = getattr(pieces, "close", None)
        if close is not None:
            await asyncio.shield(asyncio.to_thread(close))


def _gather(pieces: Iterator[bytes]) -> bytes:
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            break
    return b"".join(gathered)


class IncomingStream(io.RawIOBase):
    """An asynchronous stream as a file for a thread, read once from beginning to end."""

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._chunks = chunks
        self._loop = loop
        self._left = b""
        self._aborted = False

    def abort(self) -> None:
        """Called on the event loop: the thread's next read fails."""
        self._aborted = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            if self._aborted:
                raise InvalidRequest("the transfer was cut short")
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    async def _next(self) -> bytes | None:
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            return None


async def consume(chunks: AsyncIterator[bytes], work: Callable[[io.BufferedReader], T]) -> T:
    """Run `work` over the stream in a thread. A cancelled caller waits until the thread has stopped: whatever the thread
    works on (a mount) is let go of only then."""
    source = IncomingStream(chunks, asyncio.get_running_loop())
    task = asyncio.ensure_future(asyncio.to_thread(work, io.BufferedReader(source, _CHUNK_BYTES)))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        source.abort()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


class Halt:
    """Tells a thread that nobody waits for its work any more."""

    def __init__(self) -> None:
        self.told = False

    def check(self) -> None:
        """Called in the thread; raises once the work is not wanted."""
        if self.told:
            raise Unavailable("the operation was cancelled")


async def run_to_end(work: Callable[[], T], halt: Halt) -> T:
    """Run `work` in a thread; a cancelled caller tells it to stop and waits for it, so that what it made is known."""

    def tell() -> None:
        halt.told = True

    return await to_the_end(asyncio.to_thread(work), on_cancel=tell)
