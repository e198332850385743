"""Work that goes to its end: whoever is cancelled while he waits for it must know what it made, to undo that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T], *, on_cancel: Callable[[], None] = lambda: None) -> T:
    """Wait for `work`; when cancelled, call `on_cancel` (which may hurry it), wait all the same, and pass the cancellation on.

    A failure of work whose caller was cancelled is told to nobody: the cancellation is what he hears of.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
