"""The threads in which the network's blocking work happens.

Worker: one thread that owns the netlink socket and the nftables context; everything quick goes through it, in order
Reaper: another that deletes devices (each deletion waits for RCU, about 25 ms) while the first goes on
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from silo.model.finishing import to_the_end
from silo.network.nftables import Nftables
from silo.network.plumbing import Plumbing

T = TypeVar("T")

# A sandbox's end takes its devices along; only what is still there after these pauses is deleted by us.
_PAUSES_S = (0.02, 0.05, 0.1, 0.2)


async def finish(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    """Run in a thread; when cancelled, wait for its end first: the caller's undo must see what was done."""
    return await to_the_end(asyncio.get_running_loop().run_in_executor(executor, function))


class Worker:
    """`plumbing` and `nft` may be used only inside functions given to `do`."""

    plumbing: Plumbing
    nft: Nftables

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "silo-network")

    async def open(self) -> None:
        def make() -> None:
            self.nft = Nftables()
            self.plumbing = Plumbing()

        await finish(self._executor, make)

    async def do(self, function: Callable[[], T]) -> T:
        return await finish(self._executor, function)

    async def close(self) -> None:
        def end() -> None:
            if hasattr(self, "plumbing"):
                self.plumbing.close()
            if hasattr(self, "nft"):
                self.nft.close()

        await finish(self._executor, end)
        self._executor.shutdown()


class Reaper:
    """Deletes host ends of veth pairs."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "silo-reaper")
        self._plumbing: Plumbing | None = None

    def _tools(self) -> Plumbing:
        if self._plumbing is None:
            self._plumbing = Plumbing()
        return self._plumbing

    async def delete(self, names: Sequence[str]) -> None:
        await finish(self._executor, lambda: self._tools().delete(names))

    async def reap(self, names: Sequence[str]) -> None:
        """Wait until the sandbox's end has taken the devices along, delete what stays."""
        left = list(names)
        for pause_s in _PAUSES_S:
            await asyncio.sleep(pause_s)
            missing = await finish(self._executor, lambda: self._tools().missing(names))
            left = [name for name in names if name not in missing]
            if not left:
                return
        await self.delete(left)

    async def close(self) -> None:
        def end() -> None:
            if self._plumbing is not None:
                self._plumbing.close()

        await finish(self._executor, end)
        self._executor.shutdown()
