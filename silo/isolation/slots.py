"""Ranges of host user ids: each container with a user namespace has 65,536 ids of its own for its life.

The ranges lie where no distribution's tools allocate (above systemd's container range, below 2^31) and hold ids that own
nothing on disk: layers and volumes are id-mapped, so files keep their plain owners.
"""

from __future__ import annotations

from collections import Counter

from silo.errors import Unavailable

RANGE_SIZE = 65536
FIRST_ID = 1879048192
COUNT = 3072
VM_FIRST_ID, VM_COUNT = FIRST_ID + COUNT * RANGE_SIZE, 1024
"""The virtual machines' ranges: for what a QEMU is, and for the owners of the files that it serves."""


class Slots:
    """Which ranges are taken, and by how many containers. A range just freed is used again as late as possible."""

    def __init__(self, first: int = 0, *, first_id: int = FIRST_ID, count: int = COUNT) -> None:
        self._taken: Counter[int] = Counter()
        self._first_id, self._count = first_id, count
        self._next = first % count

    def take(self) -> int:
        """The first host id of a free range."""
        for step in range(self._count):
            slot = (self._next + step) % self._count
            if slot not in self._taken:
                self._taken[slot] = 1
                self._next = slot + 1
                return self._first_id + slot * RANGE_SIZE
        raise Unavailable(
            f"all {self._count} ranges of user ids are in use", hint="remove containers or use --userns=host"
        )

    def mark(self, first_id: int) -> None:
        """One more container has it: found running, or in the user namespace of another, whose end it may outlive."""
        self._taken[(first_id - self._first_id) // RANGE_SIZE] += 1

    def free(self, first_id: int) -> None:
        """One container less; the last one gives the range back."""
        slot = (first_id - self._first_id) // RANGE_SIZE
        self._taken[slot] -= 1
        if self._taken[slot] <= 0:
            del self._taken[slot]
