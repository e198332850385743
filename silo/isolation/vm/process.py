"""The programs of a machine as the host sees them: bubblewrap, and its only child, which is process 1 of a jail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from silo.errors import HostError
from silo.host import namespaces

_KILL_LIMIT_S = 5.0


class Process:
    """Named by pid and start time, so that a pid that is used again is not taken for it. Any process, not only a child."""

    def __init__(self, pid: int, started: int | None = None) -> None:
        self.pid = pid
        self.started = namespaces.start_time(pid) if started is None else started

    @property
    def is_alive(self) -> bool:
        return self.started != 0 and namespaces.start_time(self.pid) == self.started

    async def until_dead(self, limit_s: float) -> None:
        """Its connections end before its memory is given back; the process is gone only after both. Raises TimeoutError."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        loop, dead = asyncio.get_running_loop(), asyncio.Event()
        try:
            if namespaces.start_time(self.pid) != self.started:
                return
            loop.add_reader(handle, dead.set)
            async with asyncio.timeout(limit_s):
                await dead.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def kill(self) -> None:
        """Idempotent."""
        if self.started and namespaces.kill_process(self.pid, signal.SIGKILL, started=self.started):
            with contextlib.suppress(TimeoutError):
                await self.until_dead(_KILL_LIMIT_S)


def child_of(parent: int) -> int:
    """The pid of bubblewrap's only child. Raises HostError."""
    children = _children(parent)
    if not children:
        raise HostError("a program of a machine has ended while it was being started")
    return children[0]


def kill_tree(parent: int) -> None:
    for pid in (*_children(parent), parent):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []
