"""The agent's end of the wire: bytes to frames and back, and what happens when the host goes away and comes again.

A session begins with the host's preamble and ends at the next one. The port is watched edge-triggered, through an epoll inside
the loop's: a virtio port without a host is "hung up" all the time, and would keep a level-triggered loop spinning. The kernel wakes
its watchers when the host comes and goes, and when it takes what was written.

Data frames are pulled from the streams when the port takes them, so what waits here is bounded: replies to requests that the
host has made, and one write's worth of data.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Callable

from silo.guest.loop import READ, Loop
from silo.model.guest_frames import SYNC, Frame, FrameParser, ProtocolError, SyncFinder

_READ_BYTES = 65536
_WRITE_BYTES = 65536


class Port:
    """`on_session` is called when a host has begun anew, `on_frame` for each of its frames; `pull` gives data to send.

    `pull(maximum)` answers encoded frames, b"" when nothing is to be sent.
    """

    def __init__(self, descriptor: int, loop: Loop) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._parser = FrameParser()
        self._finder = SyncFinder()
        self._alive = False
        """The host's frames can be told apart."""
        self._queue: deque[bytes] = deque()
        self._partial: bytes | memoryview = b""
        self.session = 0
        self.on_session: Callable[[], None] = lambda: None
        self.on_frame: Callable[[Frame], None] = lambda _: None
        self.pull: Callable[[int], bytes] = lambda _: b""
        self._edges = select.epoll()
        self._edges.register(descriptor, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        loop.watch(self._edges.fileno(), READ, self._ready)
        # all answers and data of one round go out together
        loop.before_sleep = self.flush

    def _ready(self) -> None:
        self._edges.poll(0)
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:  # no host; an edge comes with the next one
                break
            self._take(data)

    def _take(self, data: bytes) -> None:
        found = self._finder.feed(data)
        if found is not None:
            nonce, data = found
            self._begin(nonce)
        if not self._alive:
            return
        try:
            for frame in self._parser.feed(data):
                self.on_frame(frame)
        except ProtocolError:
            # the tail of a frame whose host died; the next one's preamble is on its way
            self._alive = False
        except Exception as error:
            # reading has to go on in any case: no other edge would come
            print(f"agent: {type(error).__name__}: {error}", file=sys.stderr)
            self._alive = False

    def _begin(self, nonce: bytes) -> None:
        self.session += 1
        self._parser.reset()
        self._alive = True
        self._queue.clear()
        self._partial = b""
        self._queue.append(SYNC + nonce)
        self.on_session()

    def send(self, frames: bytes) -> None:
        """Whole frames of this session; they go before all data."""
        if self._alive:
            self._queue.append(frames)

    def flush(self) -> None:
        """Write until the port takes no more or nothing is left."""
        while True:
            if not self._partial:
                self._partial = self._next_write()
                if not self._partial:
                    return
            try:
                count = os.write(self._descriptor, self._partial)
            except BlockingIOError:
                return
            except OSError:  # no host, or one that is leaving: the next session begins with an empty queue
                return
            if count == len(self._partial):
                self._partial = b""
            else:
                self._partial = memoryview(self._partial)[count:]

    def _next_write(self) -> bytes:
        if not self._queue:
            return self.pull(_WRITE_BYTES) if self._alive else b""
        parts = []
        size = 0
        while self._queue and size < _WRITE_BYTES:
            parts.append(self._queue.popleft())
            size += len(parts[-1])
        return b"".join(parts)
