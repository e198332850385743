"""Between the event loop and the threads that do the work: bytes in, bytes out, progress.

`run_fed` gives a thread the chunks of an async iterator as an ordinary one, a few MiB ahead at most. `in_thread` waits for a
thread even when it is cancelled: what a thread writes must have ended before its staging directory is removed.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from silo.engine.ports import Progress
from silo.errors import Unavailable
from silo.model.finishing import to_the_end

T = TypeVar("T")

# Threads of our own: loads and pulls take minutes, and must not keep the starts of containers from the loop's few.
_THREADS = ThreadPoolExecutor(16, thread_name_prefix="images")
_GATHERED = 1 << 20
_QUEUED = 8
_REPORT_EVERY_S = 0.1


class Cancelled(Unavailable):
    """The operation's thread was told to stop."""

    def __init__(self) -> None:
        super().__init__("the operation was cancelled")


class Stop:
    """A flag that a thread asks now and then."""

    def __init__(self) -> None:
        self.set = False

    def check(self) -> None:
        if self.set:
            raise Cancelled


async def in_thread(work: Callable[[], T], stop: Stop) -> T:
    """Run `work` in a thread; cancellation sets `stop` and is passed on once the thread has ended."""

    def tell() -> None:
        stop.set = True

    return await to_the_end(asyncio.get_running_loop().run_in_executor(_THREADS, work), on_cancel=tell)


class _Feed:
    """A bounded queue of gathered chunks; None is the end, an exception is the source's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        self._loop = loop
        self._stop = stop
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue()
        self._room = asyncio.Event()

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        gathered: list[bytes] = []
        size = 0
        try:
            async for chunk in chunks:
                gathered.append(chunk)
                size += len(chunk)
                if size >= _GATHERED:
                    await self._put(b"".join(gathered))
                    gathered, size = [], 0
            if gathered:
                await self._put(b"".join(gathered))
            self._queue.put(None)
        except asyncio.CancelledError:
            self._queue.put(Cancelled())
            raise
        except Exception as error:  # the thread raises it: it is the operation's failure
            self._queue.put(error)

    async def _put(self, chunk: bytes) -> None:
        while self._queue.qsize() >= _QUEUED:
            self._room.clear()
            if self._queue.qsize() < _QUEUED:
                break
            await self._room.wait()
        self._queue.put(chunk)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            item = self._queue.get()
            self._loop.call_soon_threadsafe(self._room.set)
            self._stop.check()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item


async def run_fed(chunks: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], T], stop: Stop) -> T:
    """Run `work` in a thread with the chunks as a blocking iterator."""
    feed = _Feed(asyncio.get_running_loop(), stop)
    filling = asyncio.ensure_future(feed.fill(chunks))
    try:
        return await in_thread(lambda: work(iter(feed)), stop)
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


class ProgressRelay:
    """Called from any thread; passes on to the event loop, at most ten times a second for each item and status."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self._loop = asyncio.get_running_loop()
        self._progress = progress
        self._stop = stop
        self._last: dict[tuple[str, str], float] = {}

    def check(self) -> None:
        """Raises when the operation was cancelled."""
        self._stop.check()

    def __call__(self, item: str, status: str, done: int, total: int) -> None:
        self._stop.check()
        now = time.monotonic()
        if done < total and now - self._last.get((item, status), 0.0) < _REPORT_EVERY_S:
            return
        self._last[item, status] = now
        self._loop.call_soon_threadsafe(self._progress, item, status, done, total)


def next_batch(pieces: Iterator[bytes]) -> bytes:
    """About 1 MiB of an iterator of pieces of any size; b"" at its end."""
    gathered = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _GATHERED:
            break
    return b"".join(gathered)
