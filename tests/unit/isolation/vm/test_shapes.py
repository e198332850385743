from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.isolation.vm.shapes import RESERVE_BYTES, check_update, host_limits, memory_of, processors_of
from silo.model.container import Resources
from silo.model.platform import PersonalityName

LINUX, WINDOWS = PersonalityName.LINUX, PersonalityName.WINDOWS
MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit_mib", "personality", "expected_mib"),
    [(0, LINUX, 512), (0, WINDOWS, 1024), (64, LINUX, 512), (256, LINUX, 1024), (1024, LINUX, 4096)],
)
def test_memory_has_room_for_the_limit_to_be_doubled(
    limit_mib: int, personality: PersonalityName, expected_mib: int
) -> None:
    resources = Resources(memory_bytes=limit_mib * MIB)
    assert memory_of(resources, personality, 512 * MIB) == expected_mib * MIB
    check_update(Resources(memory_bytes=2 * limit_mib * MIB), expected_mib * MIB, 1)


def test_too_little_memory() -> None:
    with pytest.raises(InvalidRequest, match="too little"):
        memory_of(Resources(memory_bytes=4 * MIB), LINUX, 512 * MIB)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(), 2),
        (Resources(nano_cpus=500_000_000), 1),
        (Resources(nano_cpus=2_500_000_000), 3),
        (Resources(cpu_quota_us=250_000, cpu_period_us=100_000), 3),
    ],
)
def test_processors(resources: Resources, expected: int) -> None:
    assert processors_of(resources, 2) == expected


def test_more_than_the_machine_has() -> None:
    with pytest.raises(InvalidRequest, match="at most 416 MiB"):
        check_update(Resources(memory_bytes=417 * MIB), 512 * MIB, 1)
    with pytest.raises(InvalidRequest, match=r"has 1 processor \(restart"):
        check_update(Resources(nano_cpus=1_500_000_000), 512 * MIB, 1)
    with pytest.raises(InvalidRequest, match="64 processors"):
        processors_of(Resources(nano_cpus=65_000_000_000), 1)


def test_the_hosts_limits_hold_the_whole_machine() -> None:
    limits = host_limits(Resources(memory_bytes=256 * MIB, nano_cpus=1, cpu_shares=2, pids_limit=7), 1024 * MIB)
    assert limits.memory_bytes > 256 * MIB + RESERVE_BYTES and limits.nano_cpus == 1 and limits.cpu_shares == 2
    assert limits.pids_limit != 7, "the container's processes are counted in its guest"
