from __future__ import annotations

from collections.abc import Callable

import pytest

from silo.host.cgroup_files import FileWrite, cpu_weight, device_writes_v1, writes_v1, writes_v2
from silo.model.container import Resources


def values(writes: tuple[object, ...]) -> dict[str, str]:
    return {write.file: write.value for write in writes}  # type: ignore[attr-defined]


def test_no_limits() -> None:
    v1, v2 = values(writes_v1(Resources())), values(writes_v2(Resources()))
    assert v1["memory.limit_in_bytes"] == v1["memory.memsw.limit_in_bytes"] == v1["cpu.cfs_quota_us"] == "-1"
    assert v2["memory.max"] == v2["memory.swap.max"] == v2["pids.max"] == "max" and v2["cpu.max"] == "max 100000"
    assert "cpuset.cpus" not in v1 and "cpuset.cpus" not in v2


def test_memory_and_swap() -> None:
    both = Resources(memory_bytes=100, memory_swap_bytes=150)
    assert values(writes_v1(both))["memory.memsw.limit_in_bytes"] == "150"
    assert values(writes_v2(both))["memory.swap.max"] == "50"
    # Docker's default: as much swap as memory
    assert values(writes_v1(Resources(memory_bytes=100)))["memory.memsw.limit_in_bytes"] == "200"
    assert values(writes_v2(Resources(memory_bytes=100)))["memory.swap.max"] == "100"
    unlimited = Resources(memory_bytes=100, memory_swap_bytes=-1)
    assert values(writes_v1(unlimited))["memory.memsw.limit_in_bytes"] == "-1"
    assert values(writes_v2(unlimited))["memory.swap.max"] == "max"


def test_processors() -> None:
    assert values(writes_v1(Resources(nano_cpus=1_500_000_000)))["cpu.cfs_quota_us"] == "150000"
    assert values(writes_v2(Resources(nano_cpus=1_500_000_000)))["cpu.max"] == "150000 100000"
    assert values(writes_v2(Resources(cpu_quota_us=5000, cpu_period_us=20000)))["cpu.max"] == "5000 20000"
    assert values(writes_v1(Resources(cpuset_cpus="0-1", cpuset_mems="0")))["cpuset.cpus"] == "0-1"


@pytest.mark.parametrize("translate", [writes_v1, writes_v2])
def test_what_was_asked_for_is_never_optional(translate: Callable[[Resources], tuple[FileWrite, ...]]) -> None:
    asked = Resources(nano_cpus=10**9, memory_bytes=100, memory_swap_bytes=200, blkio_weight=500)
    assert not [write for write in translate(asked) if write.optional]


@pytest.mark.parametrize(("shares", "weight"), [(0, 100), (2, 1), (1024, 39), (262144, 10000), (1, 1), (10**9, 10000)])
def test_shares_as_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_devices_are_denied_first() -> None:
    writes = [(write.file, write.value) for write in device_writes_v1(["c 1:3 rwm"])]
    assert writes == [("devices.deny", "a"), ("devices.allow", "c 1:3 rwm")]
    assert [write.file for write in device_writes_v1(["c 1:3 rwm", "a"])] == ["devices.allow"]
