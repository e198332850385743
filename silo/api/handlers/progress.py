"""Progress of pulls, loads and builds as a stream of JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from silo.api.call import Call
from silo.engine.ports import Progress
from silo.errors import SiloError

T = TypeVar("T")

QUEUE_LINES = 256


class ProgressStream:
    """Lines from a callback that cannot wait, to a client that may be slow: while the queue is full, news about amounts of
    bytes are dropped, for the next one says it all."""

    def __init__(self, call: Call, *, quiet: bool = False, in_bytes: bool = True) -> None:
        self._call = call
        self._quiet = quiet
        self._in_bytes = in_bytes
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE_LINES)
        self._loop = asyncio.get_running_loop()
        self._seen: dict[str, str] = {}

    def report(self, item: str, status: str, done: int, total: int) -> None:
        """May be called from any thread."""
        self._loop.call_soon_threadsafe(self._put, item, status, done, total)

    def _put(self, item: str, status: str, done: int, total: int) -> None:
        if self._quiet:
            return
        line: dict[str, Any] = {"status": status}
        if total > 0 or done > 0:
            line["progressDetail"] = {"current": done, "total": total} if total > 0 else {"current": done}
            line["progress"] = render_bar(done, total, in_bytes=self._in_bytes)
        elif item:
            line["progressDetail"] = {}
        if item:
            line["id"] = item
        news = self._seen.get(item) != status
        self._seen[item] = status
        if not self._queue.full():
            self._queue.put_nowait(line)
        elif news:
            self._queue.get_nowait()
            self._queue.put_nowait(line)

    async def say(self, line: dict[str, Any]) -> None:
        await self._flush()
        await self._call.write_json(line)

    async def _flush(self) -> None:
        while not self._queue.empty():
            await self._call.write_json(self._queue.get_nowait())

    async def next_line(self) -> dict[str, Any]:
        """For whoever sends the lines by itself."""
        return await self._queue.get()

    async def run(self, work: Awaitable[T]) -> T:
        """Await `work` while sending its progress."""
        task = asyncio.ensure_future(work)
        getter: asyncio.Future[dict[str, Any]] | None = None
        try:
            while not task.done():
                getter = asyncio.ensure_future(self._queue.get())
                await asyncio.wait({task, getter}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    await self._call.write_json(getter.result())
                else:
                    getter.cancel()
            # Callbacks that threads have sent are on the loop's list before the task's end is.
            await asyncio.sleep(0)
            await self._flush()
            return task.result()
        finally:
            if getter is not None:
                getter.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def render_bar(done: int, total: int, *, in_bytes: bool) -> str:
    """The text that clients without a terminal print."""
    if total <= 0:
        return _size(done)
    filled = min(50, done * 50 // total)
    arrow = "=" * filled + (">" if filled < 50 else "")
    if not in_bytes:
        return f"[{arrow:<50}] {done * 100 // total:>3} %"
    return f"[{arrow:<50}] {_size(min(done, total)):>8}/{_size(total)}"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.4g}TB"


async def stream_progress(
    call: Call,
    work: Callable[[Progress], Awaitable[T]],
    *,
    quiet: bool = False,
    in_bytes: bool = True,
    last: Callable[[T], list[dict[str, Any]]] = lambda _result: [],
    first: list[dict[str, Any]] | None = None,
) -> None:
    """Answer with JSON lines: `first`, the progress of `work`, `last`. An error becomes Docker's error line."""
    call.begin("application/json")
    stream = ProgressStream(call, quiet=quiet, in_bytes=in_bytes)
    for line in first or []:
        await stream.say(line)
    try:
        result = await stream.run(work(stream.report))
        for line in last(result):
            await stream.say(line)
    except SiloError as error:
        await stream.say({"errorDetail": {"message": str(error)}, "error": str(error)})
