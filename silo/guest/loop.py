"""The agent's event loop: descriptors, timers, children, and results of the few threads for work that would block.

Threads only touch files and pipes; everything else happens on the loop.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Callback = Callable[[], object]


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._serial = itertools.count()
        self._finished: deque[Callback] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.before_sleep: Callback = lambda: None
        self.on_children: Callback = lambda: None
        self.running = True

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.watch(self._wake_read, READ, self._woken)
        # a child may have ended before the handler was there
        self._guarded(self.on_children)
        while self.running:
            self._guarded(self.before_sleep)
            for key, _ in self._selector.select(self._until_timer()):
                # an earlier callback of this round may have closed it
                if self._selector.get_map().get(key.fd) is key:
                    self._guarded(key.data)
            self._run_timers()

    def _guarded(self, callback: Callback) -> None:
        """The agent is pid 1: whatever a callback meets, the others go on."""
        try:
            callback()
        except Exception as error:
            import traceback

            print(f"agent: {type(error).__name__}: {error}", file=sys.stderr)
            traceback.print_exc()

    def watch(self, descriptor: int, events: int, callback: Callback) -> None:
        """Replaces what was watched of it; an event of both kinds is one call."""
        try:
            self._selector.register(descriptor, events, callback)
        except KeyError:
            self._selector.modify(descriptor, events, callback)

    def unwatch(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def later(self, delay_s: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._serial), callback))

    def _until_timer(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._guarded(heapq.heappop(self._timers)[2])

    def in_thread(self, work: Callable[[], object], done: Callable[[object], object]) -> None:
        """`done` gets on the loop what `work` answered, or the exception that it raised."""
        import threading

        def body() -> None:
            result: object
            try:
                result = work()
            except Exception as error:
                result = error
            self._finished.append(lambda: done(result))
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"\0")

        threading.Thread(target=body, daemon=True).start()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self._guarded(self.on_children)
        while self._finished:
            self._guarded(self._finished.popleft())
