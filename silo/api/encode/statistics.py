"""`docker stats`: two samples in Docker's shape, from which the client computes percentages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from silo.model.clock import ZERO_TIME, format_time
from silo.model.container import ContainerRecord
from silo.model.network import NetworkStatistics
from silo.model.runtime import Statistics

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPUS = os.cpu_count() or 1


class CpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """A container's use beside the host's at one moment."""

    statistics: Statistics
    host_ns: int
    time_ns: int


def host_cpu_ns() -> int:
    """Time that all processors of the host have spent since it booted."""
    with Path("/proc/stat").open() as file:
        words = file.readline().split()
    # user nice system idle iowait irq softirq steal; guest times are within user's.
    return sum(int(word) for word in words[1:9]) * _TICK_NS


def encode_statistics(
    record: ContainerRecord, now: CpuSample, before: CpuSample | None, networks: Sequence[NetworkStatistics]
) -> dict[str, Any]:
    sample = now.statistics
    running = bool(sample.memory_bytes or sample.cpu_total_ns or sample.pids)
    shown: dict[str, Any] = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": format_time(now.time_ns) if running else ZERO_TIME,
        "preread": format_time(before.time_ns) if before else ZERO_TIME,
        "pids_stats": {"current": sample.pids, "limit": sample.pids_limit} if running else {},
        "blkio_stats": _block_io(sample, running),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample, now.host_ns) if running else _cpu(Statistics(), 0),
        "precpu_stats": _cpu(before.statistics, before.host_ns) if before else _cpu(Statistics(), 0),
        "memory_stats": _memory(sample) if running else {},
    }
    if networks:
        shown["networks"] = {
            row.interface: {
                "rx_bytes": row.rx_bytes,
                "rx_packets": row.rx_packets,
                "rx_errors": row.rx_errors,
                "rx_dropped": row.rx_dropped,
                "tx_bytes": row.tx_bytes,
                "tx_packets": row.tx_packets,
                "tx_errors": row.tx_errors,
                "tx_dropped": row.tx_dropped,
            }
            for row in networks
        }
    return shown


def _cpu(sample: Statistics, host_ns: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "cpu_usage": {
            "total_usage": sample.cpu_total_ns,
            "usage_in_kernelmode": sample.cpu_system_ns,
            "usage_in_usermode": sample.cpu_user_ns,
        },
        "throttling_data": {
            "periods": sample.periods,
            "throttled_periods": sample.throttled_periods,
            "throttled_time": sample.throttled_ns,
        },
    }
    if host_ns:
        shown |= {"system_cpu_usage": host_ns, "online_cpus": _CPUS}
    return shown


def _memory(sample: Statistics) -> dict[str, Any]:
    detail = dict(sample.memory_detail)
    detail.setdefault("inactive_file", sample.memory_inactive_file_bytes)
    shown: dict[str, Any] = {"usage": sample.memory_bytes, "stats": detail}
    if sample.memory_max_bytes:
        shown["max_usage"] = sample.memory_max_bytes
    shown["limit"] = sample.memory_limit_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return shown


def _block_io(sample: Statistics, running: bool) -> dict[str, Any]:
    rows = [
        {"major": 0, "minor": 0, "op": "read", "value": sample.block_read_bytes},
        {"major": 0, "minor": 0, "op": "write", "value": sample.block_write_bytes},
    ]
    others = (
        "io_serviced_recursive io_queue_recursive io_service_time_recursive io_wait_time_recursive "
        "io_merged_recursive io_time_recursive sectors_recursive"
    ).split()
    return {"io_service_bytes_recursive": rows if running else None} | dict.fromkeys(others)
