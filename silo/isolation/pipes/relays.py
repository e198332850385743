"""The relays that run: started, counted, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from silo.errors import SiloError

log = logging.getLogger(__name__)

_LAST_BYTES_S = 10.0


class Relays:
    def __init__(self, name: str) -> None:
        self._name = name
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._run(work), name=f"pipe-{self._name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (SiloError, OSError) as error:
            log.warning("the pipe %s: %s", self._name, error)

    async def close(self) -> None:
        """The silo's ends are closed: what lies in between is passed on. Who does not take it in time does not get it."""
        try:
            if self._running:
                await asyncio.wait(self._running, timeout=_LAST_BYTES_S)
        finally:
            for task in self._running:
                task.cancel()
        if self._running:
            await asyncio.wait(self._running)
