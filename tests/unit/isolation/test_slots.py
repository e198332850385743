from __future__ import annotations

from pathlib import Path

import pytest

from silo.errors import Unavailable
from silo.host.cgroups import cgroup_parent
from silo.isolation.process.record import Paths
from silo.isolation.slots import COUNT, FIRST_ID, RANGE_SIZE, Slots


def test_ranges_do_not_overlap_and_are_reused_late() -> None:
    slots = Slots()
    first, second = slots.take(), slots.take()
    assert (first, second) == (FIRST_ID, FIRST_ID + RANGE_SIZE)
    slots.free(first)
    assert slots.take() == FIRST_ID + 2 * RANGE_SIZE


def test_a_shared_range_is_free_when_its_last_container_is_gone() -> None:
    slots = Slots()
    owner = slots.take()
    slots.mark(owner)
    others = {slots.take() for _ in range(COUNT - 1)}
    slots.free(owner)
    with pytest.raises(Unavailable):
        slots.take()
    slots.free(owner)
    assert slots.take() == owner and owner not in others


def test_all_taken() -> None:
    slots = Slots(COUNT - 1)
    slots.mark(FIRST_ID)
    taken = {slots.take() for _ in range(COUNT - 1)}
    assert len(taken) == COUNT - 1 and FIRST_ID not in taken
    with pytest.raises(Unavailable):
        slots.take()
    slots.free(FIRST_ID)
    assert slots.take() == FIRST_ID
    assert max(taken) + RANGE_SIZE <= 2**31


def test_daemons_with_different_run_directories_stay_apart() -> None:
    usual, one, two = Paths(Path("/run/silo")), Paths(Path("/tmp/one")), Paths(Path("/tmp/two"))
    assert usual.first_slot == 0
    assert len({usual.first_slot, one.first_slot, two.first_slot}) == 3
    assert cgroup_parent(usual.run_root) == "silo"
    assert len({cgroup_parent(paths.run_root) for paths in (usual, one, two)}) == 3
