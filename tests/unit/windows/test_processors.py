from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.model.container import Resources
from silo.model.platform import Isolation
from silo.windows.processors import check_processors, discarded, kernel_limits

PROCESS, HYPERV = Isolation.PROCESS, Isolation.HYPERV


@pytest.mark.parametrize(
    ("level", "given", "nano_cpus", "cpu_shares"),
    [
        (PROCESS, {}, 0, 0),
        (PROCESS, {"nano_cpus": 1_500_000_000}, 1_500_000_000, 0),
        (PROCESS, {"cpu_count": 2}, 2_000_000_000, 0),
        (PROCESS, {"cpu_percent": 50}, 2_000_000_000, 0),
        (PROCESS, {"cpu_shares": 5000}, 0, 1024),
        (PROCESS, {"cpu_shares": 10000}, 0, 2048),
        (PROCESS, {"cpu_shares": 1}, 0, 2),
        (PROCESS, {"cpu_count": 1, "cpu_shares": 100, "cpu_percent": 5}, 1_000_000_000, 0),
        (PROCESS, {"cpu_shares": 2500, "cpu_percent": 5}, 0, 512),
        (HYPERV, {"cpu_count": 2, "cpu_shares": 10000, "cpu_percent": 25}, 500_000_000, 2048),
        (HYPERV, {"cpu_percent": 25}, 1_000_000_000, 0),
    ],
)
def test_the_kernels_limits_on_four_processors(
    level: Isolation, given: dict[str, int], nano_cpus: int, cpu_shares: int
) -> None:
    limits = kernel_limits(Resources(**given), level, present=4)
    assert (limits.nano_cpus, limits.cpu_shares) == (nano_cpus, cpu_shares)


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({"cpu_count": 1, "cpu_shares": 1, "cpu_percent": 1}, ["shares", "percent"]),
        ({"cpu_shares": 1, "cpu_percent": 1}, ["percent"]),
        ({"cpu_count": 1}, []),
    ],
)
def test_what_does_not_count_is_said(given: dict[str, int], lost: list[str]) -> None:
    warnings = discarded(Resources(**given), PROCESS)
    assert [line.split()[-2] for line in warnings] == lost
    assert discarded(Resources(**given), HYPERV) == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpu_percent": 101}, "Range of CPU percent is from 1 to 100"),
        ({"cpu_percent": -1}, "Range of CPU percent is from 1 to 100"),
        ({"cpu_shares": 10001}, "from 1 to 10000"),
        ({"nano_cpus": 1, "cpu_percent": 1}, "Nano CPUs and CPU Percent cannot both be set"),
        ({"nano_cpus": 1, "cpu_shares": 1}, "Nano CPUs and CPU Shares cannot both be set"),
        ({"nano_cpus": 1, "cpu_count": 1}, "Nano CPUs and CPU Count cannot both be set"),
    ],
)
def test_what_is_refused(given: dict[str, int], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_processors(Resources(**given))
