"""The event bus behind `docker events`: a bounded history and any number of followers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

HISTORY_EVENTS = 1024
# A follower that does not read is dropped rather than let grow without bound.
FOLLOWER_BACKLOG = 4096


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `type`: container, image, network, volume, daemon; `action` in Docker's words."""

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int


class EventBus:
    """Publish on the event loop; follow from any task."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY_EVENTS)
        self._followers: set[asyncio.Queue[Event | None]] = set()

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None) -> None:
        """Record an event and wake every follower."""
        event = Event(
            type=kind, action=action, actor_id=actor_id, attributes=dict(attributes or {}), time_ns=time.time_ns()
        )
        self._history.append(event)
        for queue in tuple(self._followers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._followers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def follow(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        matches: Callable[[Event], bool] = lambda _event: True,
    ) -> AsyncIterator[Event]:
        """Past events from `since_ns`, then live ones until `until_ns` (None: for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(FOLLOWER_BACKLOG)
        self._followers.add(queue)
        try:
            for event in tuple(self._history) if since_ns is not None else ():
                if (
                    event.time_ns >= (since_ns or 0)
                    and (until_ns is None or event.time_ns <= until_ns)
                    and matches(event)
                ):
                    yield event
            while True:
                left_s = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if left_s is not None and left_s <= 0:
                    return
                try:
                    live = await asyncio.wait_for(queue.get(), left_s)
                except TimeoutError:
                    return
                if live is None:
                    return
                if matches(live):
                    yield live
        finally:
            self._followers.discard(queue)
