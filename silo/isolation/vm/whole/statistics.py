"""What a whole guest uses of the machine: as its agent and its balloon driver tell, else as the host sees its QEMU."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import SiloError
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.whole.command import BALLOON_ID
from silo.isolation.vm.whole.guest_agent import GuestAgent
from silo.model.runtime import Statistics

_BALLOON = f"/machine/peripheral/{BALLOON_ID}"
_POLLING_S = 2
_AGENT_LIMIT_S = 3.0
_NS_IN_MS, _NS_IN_S = 10**6, 10**9


class _CpuStatistics(msgspec.Struct, frozen=True):
    """Milliseconds."""

    user: int
    system: int
    nice: int = 0
    irq: int = 0
    softirq: int = 0


async def poll_memory(monitor: QmpClient) -> None:
    """Let QEMU ask the balloon driver from now on."""
    name = "guest-stats-polling-interval"
    await monitor.execute("qom-set", path=_BALLOON, property=name, value=_POLLING_S)


async def read_statistics(
    monitor: QmpClient, agent: GuestAgent | None, pid: int, memory_bytes: int, *, of_guest: bool
) -> tuple[Statistics, bool]:
    """A sample, and whether its processor times are the guest's own count. `of_guest`: they shall be.

    The two counts must not be mixed in a container's samples: differences of them would be nonsense.
    """
    user_ns = system_ns = 0
    if of_guest and agent is not None:
        times = await agent.ask(list[_CpuStatistics], "guest-get-cpustats", limit_s=_AGENT_LIMIT_S)
        user_ns = sum(each.user + each.nice for each in times) * _NS_IN_MS
        system_ns = sum(each.system + each.irq + each.softirq for each in times) * _NS_IN_MS
    else:
        user_ns, system_ns = process_times(pid)
    used, cached = await _memory(monitor)
    read, written = await _disk(monitor)
    return Statistics(
        cpu_total_ns=user_ns + system_ns,
        cpu_user_ns=user_ns,
        cpu_system_ns=system_ns,
        memory_bytes=used or resident_bytes(pid),
        memory_limit_bytes=memory_bytes,
        memory_inactive_file_bytes=cached,
        block_read_bytes=read,
        block_write_bytes=written,
    ), of_guest and agent is not None


async def _memory(monitor: QmpClient) -> tuple[int, int]:
    """(used with caches, caches); (0, 0) while the guest has no driver that tells."""
    untrusted: Any = None
    with contextlib.suppress(SiloError):
        untrusted = await monitor.execute("qom-get", path=_BALLOON, property="guest-stats")
    values = untrusted.get("stats") if isinstance(untrusted, dict) else None
    if not isinstance(values, dict):
        return 0, 0
    total, free, cached = (
        _amount(values.get(f"stat-{name}")) for name in ("total-memory", "free-memory", "disk-caches")
    )
    return max(total - free, 0), min(cached, max(total - free, 0))


async def _disk(monitor: QmpClient) -> tuple[int, int]:
    untrusted: Any = None
    with contextlib.suppress(SiloError):
        untrusted = await monitor.execute("query-blockstats")
    sums = [0, 0]
    for device in untrusted if isinstance(untrusted, list) else ():
        values = device.get("stats") if isinstance(device, dict) and device.get("qdev") else None
        if isinstance(values, dict):
            sums[0] += _amount(values.get("rd_bytes"))
            sums[1] += _amount(values.get("wr_bytes"))
    return sums[0], sums[1]


def _amount(untrusted_value: Any) -> int:
    """QEMU writes what it does not know as the largest number."""
    is_amount = isinstance(untrusted_value, int) and 0 <= untrusted_value < 1 << 62
    return untrusted_value if is_amount else 0


def process_times(pid: int) -> tuple[int, int]:
    """(user, system) in nanoseconds; zeros when it is gone."""
    with contextlib.suppress(OSError, ValueError):
        text = Path(f"/proc/{pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) * _NS_IN_S // ticks, int(fields[12]) * _NS_IN_S // ticks
    return 0, 0


def resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
