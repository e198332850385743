"""Docker for Windows' words on processors (`--cpu-count`, `--cpu-shares`, `--cpu-percent`, `--cpus`) as the kernel's limits. Pure.

Of a container with process isolation only one of them counts, in this order: count, shares, percent; the others are discarded with
a warning, as moby does (daemon_windows.go). In a virtual machine they add up: so many processors, so much of them, that weight.
"""

from __future__ import annotations

import msgspec

from silo.errors import InvalidRequest
from silo.model.container import Resources
from silo.model.platform import Isolation

MAXIMUM_SHARES = 10_000
_USUAL_SHARES = 5000
"""What a Windows container weighs without the option; the kernel's usual weight is 1024."""
_USUAL_WEIGHT = 1024
_PROCESSOR = 1_000_000_000
_PERCENT = _PROCESSOR // 100


def check_processors(resources: Resources) -> None:
    """Raises InvalidRequest with moby's words."""
    if not 0 <= resources.cpu_percent <= 100:
        raise InvalidRequest("Range of CPU percent is from 1 to 100")
    if not 0 <= resources.cpu_shares <= MAXIMUM_SHARES:
        raise InvalidRequest(f"Range of CPU shares is from 1 to {MAXIMUM_SHARES}", hint="of Windows containers")
    if resources.nano_cpus:
        for name, given in (
            ("Percent", resources.cpu_percent),
            ("Shares", resources.cpu_shares),
            ("Count", resources.cpu_count),
        ):
            if given:
                raise InvalidRequest(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")


def discarded(resources: Resources, isolation: Isolation) -> tuple[str, ...]:
    """What does not count, as warnings."""
    if isolation is Isolation.HYPERV:
        return ()
    given = [
        name
        for name, value in (
            ("count", resources.cpu_count),
            ("shares", resources.cpu_shares),
            ("percent", resources.cpu_percent),
        )
        if value
    ]
    return tuple(
        f"Conflicting options: CPU {given[0]} takes priority over CPU {name} on Windows Server Containers. CPU {name} discarded"
        for name in given[1:]
    )


def kernel_limits(resources: Resources, isolation: Isolation, *, present: int) -> Resources:
    """With `nano_cpus` and `cpu_shares` as cgroups have them. `present`: processors of the host."""
    count, shares, percent = resources.cpu_count, resources.cpu_shares, resources.cpu_percent
    if isolation is not Isolation.HYPERV:
        shares = 0 if count else shares
        percent = 0 if count or shares else percent
    nano_cpus = resources.nano_cpus or count * _PROCESSOR
    if percent:
        nano_cpus = (count or present) * percent * _PERCENT
    weight = max(2, shares * _USUAL_WEIGHT // _USUAL_SHARES) if shares else 0
    return msgspec.structs.replace(resources, nano_cpus=nano_cpus, cpu_shares=weight)
