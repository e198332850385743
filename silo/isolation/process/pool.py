"""Linux sandboxes made ahead: a cgroup, a child parked in it, and fresh user and network namespaces. Each is used once.

Nothing of a container is in them yet, so any container with namespaces of its own can take one. They belong to this daemon:
when it dies the keeper ends the parked children, and the next daemon removes the cgroups.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from dataclasses import dataclass

from silo.errors import SiloError
from silo.host.cgroups import CgroupTree
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.slots import RANGE_SIZE, Slots

log = logging.getLogger(__name__)

# a refill costs milliseconds that the container just started shall not pay
_REFILL_DELAY_S = 0.1


@dataclass(frozen=True, slots=True)
class PooledSandbox:
    """`name` is its cgroup and the key of its parked child; the descriptors belong to whoever takes it."""

    name: str
    first_host_uid: int
    user_namespace: int
    network_namespace: int


class SandboxPool:
    def __init__(self, size: int, keeper: KeeperClient, cgroups: CgroupTree, slots: Slots) -> None:
        self._size = size
        self._keeper = keeper
        self._cgroups = cgroups
        self._slots = slots
        self._items: list[PooledSandbox] = []
        self._making: set[str] = set()
        self._filling: asyncio.Task[None] | None = None

    def names(self) -> frozenset[str]:
        return frozenset((*self._making, *(item.name for item in self._items)))

    def take(self) -> PooledSandbox | None:
        item = self._items.pop() if self._items else None
        self.fill(delay_s=_REFILL_DELAY_S)
        return item

    def fill(self, *, delay_s: float = 0.0) -> None:
        """Begin to make what is missing."""
        if self._size and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill(delay_s), name="fill-sandbox-pool")

    async def _fill(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            while len(self._items) < self._size:
                self._items.append(await self._make())
        except (SiloError, OSError) as error:
            log.warning("no sandbox could be made ahead: %s", error)

    async def _make(self) -> PooledSandbox:
        name = f"pool-{secrets.token_hex(8)}"
        first = self._slots.take()
        self._making.add(name)
        try:
            await asyncio.to_thread(self._cgroups.create, name)
            entry_files = self._cgroups.entry_files(name)
            reply = await self._keeper.request(
                "park", key=name, entry_files=entry_files, user=[first, RANGE_SIZE], network=True
            )
        except BaseException:
            self._slots.free(first)
            with contextlib.suppress(SiloError, OSError):
                await asyncio.to_thread(self._cgroups.remove, name)
            raise
        finally:
            self._making.discard(name)
        return PooledSandbox(name, first, *reply.descriptors)

    def abandon(self) -> None:
        """The keeper is gone, and the parked children with it."""
        for item in self._items:
            self._forget(item)
        self._items.clear()

    async def close(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        items, self._items = self._items, []
        for item in items:
            with contextlib.suppress(SiloError):
                await self._keeper.request("discard", key=item.name)
            self._forget(item)
            with contextlib.suppress(SiloError):
                await asyncio.to_thread(self._cgroups.remove, item.name)

    def _forget(self, item: PooledSandbox) -> None:
        os.close(item.user_namespace)
        os.close(item.network_namespace)
        self._slots.free(item.first_host_uid)
