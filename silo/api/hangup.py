"""Notices that a client is wholly gone although its connection was half closed before.

After a half-close (`docker run` without stdin does one right after the 101) the event loop no longer reads a connection, so
it would learn of the client's death only at the next write, maybe hours later. An epoll set with no event asked for still
reports EPOLLHUP; its own descriptor is readable then. One such set serves all connections.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangupWatcher:
    """Calls back once when both directions of a socket are shut."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._wake)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        if self._epoll.closed:
            return
        if fd not in self._callbacks:
            self._epoll.register(fd, 0)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _wake(self) -> None:
        for fd, _events in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.forget(fd)
            if callback is not None:
                callback()

    def close(self) -> None:
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()
