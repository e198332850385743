"""Who a VM's QEMU is: a range of user ids for each, and the user namespace that goes with it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from silo.host import namespaces
from silo.isolation.slots import RANGE_SIZE, VM_COUNT, VM_FIRST_ID, Slots
from silo.isolation.vm.accelerator import kvm_group


@dataclass(frozen=True, slots=True)
class Range:
    """`namespace` is a descriptor that belongs to `Ranges`."""

    first_id: int
    namespace: int


class Ranges:
    """Namespaces are kept for as long as the daemon lives: a process is needed to make one, and they hold nothing."""

    def __init__(self, first: int) -> None:
        self._slots = Slots(first, first_id=VM_FIRST_ID, count=VM_COUNT)
        self._namespaces: dict[int, int] = {}
        self._idle: list[int] = []

    async def take(self) -> Range:
        """Raises Unavailable (all taken), HostError (no user namespaces on this host)."""
        first_id = self._idle.pop(0) if self._idle else self._slots.take()
        if first_id not in self._namespaces:
            try:
                self._namespaces[first_id] = await asyncio.to_thread(
                    namespaces.make_user_namespace, first_id, RANGE_SIZE, group=kvm_group()
                )
            except BaseException:
                self._slots.free(first_id)
                raise
        return Range(first_id, self._namespaces[first_id])

    async def adopt(self, first_id: int) -> Range:
        """A VM was found running with it; folders that are mounted for it later need an equal namespace."""
        self._slots.mark(first_id)
        if first_id not in self._namespaces:
            self._namespaces[first_id] = await asyncio.to_thread(
                namespaces.make_user_namespace, first_id, RANGE_SIZE, group=kvm_group()
            )
        return Range(first_id, self._namespaces[first_id])

    def give_back(self, first_id: int) -> None:
        if first_id in self._namespaces:
            self._idle.append(first_id)
        else:
            self._slots.free(first_id)

    def close(self) -> None:
        for descriptor in self._namespaces.values():
            os.close(descriptor)
        self._namespaces.clear()
        self._idle.clear()
