"""`Resources` as writes to cgroup files: pure translations for v1 and v2.

Sources: the kernel's `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`; the conversion of cpu shares to cpu.weight
is the one of the OCI runtime specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from silo.model.container import Resources

_DEFAULT_PERIOD_US = 100_000

DEFAULT_DEVICE_RULES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)
"""null, zero, full, random, urandom, tty, ptmx and terminals; nodes may be made but others not opened."""


class FileWrite(NamedTuple):
    """`limit` is the user's word for it; an `optional` file may be missing (a kernel without that feature)."""

    controller: str
    file: str
    value: str
    limit: str
    optional: bool = False


def quota(resources: Resources) -> tuple[int, int]:
    """(quota, period) in microseconds; quota -1 is unlimited."""
    if resources.nano_cpus > 0:
        return max(1000, resources.nano_cpus * _DEFAULT_PERIOD_US // 1_000_000_000), _DEFAULT_PERIOD_US
    return resources.cpu_quota_us or -1, resources.cpu_period_us or _DEFAULT_PERIOD_US


def memory_and_swap(resources: Resources) -> int:
    """Memory plus swap in bytes, -1 unlimited; Docker's default is twice the memory."""
    if resources.memory_swap_bytes != 0:
        return resources.memory_swap_bytes
    return resources.memory_bytes * 2 if resources.memory_bytes > 0 else -1


def writes_v1(resources: Resources) -> tuple[FileWrite, ...]:
    limit_us, period_us = quota(resources)
    memory = resources.memory_bytes or -1
    pids = str(resources.pids_limit) if resources.pids_limit > 0 else "max"
    words = ("cpus", "cpus") if resources.nano_cpus else ("cpu period", "cpu quota")
    writes = [
        # what a kernel lacks is missed only by those who asked for it
        FileWrite("cpu", "cpu.cfs_period_us", str(period_us), words[0], optional=limit_us < 0),
        FileWrite("cpu", "cpu.cfs_quota_us", str(limit_us), words[1], optional=limit_us < 0),
        FileWrite("cpu", "cpu.shares", str(resources.cpu_shares or 1024), "cpu shares"),
        FileWrite("pids", "pids.max", pids, "pids"),
        FileWrite("memory", "memory.limit_in_bytes", str(memory), "memory"),
        # a kernel without swap accounting has no memsw files
        FileWrite(
            "memory",
            "memory.memsw.limit_in_bytes",
            str(memory_and_swap(resources)),
            "memory swap",
            optional=resources.memory_swap_bytes <= 0,
        ),
        FileWrite(
            "memory", "memory.soft_limit_in_bytes", str(resources.memory_reservation_bytes or -1), "memory reservation"
        ),
        FileWrite("memory", "memory.oom_control", "1" if resources.oom_kill_disable else "0", "oom kill"),
    ]
    if resources.memory_swappiness is not None and resources.memory_swappiness >= 0:
        writes.append(FileWrite("memory", "memory.swappiness", str(resources.memory_swappiness), "memory swappiness"))
    if resources.blkio_weight:
        # BFQ's file exists only where that scheduler does
        writes.append(FileWrite("blkio", "blkio.bfq.weight", str(resources.blkio_weight), "blkio weight"))
    return (*writes, *_cpuset(resources))


def writes_v2(resources: Resources) -> tuple[FileWrite, ...]:
    limit_us, period_us = quota(resources)
    memory = resources.memory_bytes
    both = memory_and_swap(resources)
    swap = "max" if both < 0 or not memory else str(max(0, both - memory))
    writes = [
        FileWrite("cpu", "cpu.max", f"{'max' if limit_us < 0 else limit_us} {period_us}", "cpus"),
        FileWrite("cpu", "cpu.weight", str(cpu_weight(resources.cpu_shares)), "cpu shares"),
        FileWrite("pids", "pids.max", str(resources.pids_limit) if resources.pids_limit > 0 else "max", "pids"),
        FileWrite("memory", "memory.max", str(memory or "max"), "memory"),
        FileWrite("memory", "memory.swap.max", swap, "memory swap", optional=resources.memory_swap_bytes <= 0),
        FileWrite("memory", "memory.low", str(resources.memory_reservation_bytes or 0), "memory reservation"),
    ]
    if resources.blkio_weight:
        writes.append(FileWrite("io", "io.bfq.weight", str(resources.blkio_weight), "blkio weight"))
    return (*writes, *_cpuset(resources))


def cpu_weight(shares: int) -> int:
    """cpu.shares (2…262144, default 1024) as cpu.weight (1…10000, default 100)."""
    if shares == 0:
        return 100
    bounded = min(max(shares, 2), 262144)
    return 1 + ((bounded - 2) * 9999) // 262142


def device_writes_v1(rules: Iterable[str]) -> tuple[FileWrite, ...]:
    """Deny all, then allow `rules`; the rule `a` allows everything."""
    listed = tuple(rules)
    if "a" in listed:
        return (FileWrite("devices", "devices.allow", "a", "devices"),)
    return (
        FileWrite("devices", "devices.deny", "a", "devices"),
        *(FileWrite("devices", "devices.allow", rule, "device rule") for rule in listed),
    )


def _cpuset(resources: Resources) -> tuple[FileWrite, ...]:
    writes = []
    if resources.cpuset_cpus:
        writes.append(FileWrite("cpuset", "cpuset.cpus", resources.cpuset_cpus, "cpuset cpus"))
    if resources.cpuset_mems:
        writes.append(FileWrite("cpuset", "cpuset.mems", resources.cpuset_mems, "cpuset mems"))
    return tuple(writes)
