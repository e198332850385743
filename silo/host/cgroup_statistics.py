"""Readings of one container's cgroup as `Statistics`; a file that this kernel lacks counts as 0."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from silo.model.runtime import Statistics

# v1 shows "no limit" as the largest page-aligned 63-bit number
_UNLIMITED = 1 << 62


def load_v1(paths: Mapping[str, Path]) -> Statistics:
    missing = Path("/nonexistent")
    cpu, cpuacct = paths.get("cpu", missing), paths.get("cpuacct", missing)
    memory, pids, blkio = paths.get("memory", missing), paths.get("pids", missing), paths.get("blkio", missing)
    throttling = _table(cpu / "cpu.stat")
    detail = _table(memory / "memory.stat")
    read, written = _block_bytes_v1(blkio)
    return Statistics(
        cpu_total_ns=_number(cpuacct / "cpuacct.usage"),
        cpu_user_ns=_number(cpuacct / "cpuacct.usage_user"),
        cpu_system_ns=_number(cpuacct / "cpuacct.usage_sys"),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        memory_max_bytes=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit_bytes=_limit(memory / "memory.limit_in_bytes"),
        memory_inactive_file_bytes=detail.get("total_inactive_file", 0),
        memory_detail=detail,
        pids=_number(pids / "pids.current"),
        pids_limit=_limit(pids / "pids.max"),
        block_read_bytes=read,
        block_write_bytes=written,
    )


def load_v2(path: Path) -> Statistics:
    cpu = _table(path / "cpu.stat")
    detail = _table(path / "memory.stat")
    read = written = 0
    for line in _text(path / "io.stat").splitlines():
        values = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
        read += int(values.get("rbytes", 0))
        written += int(values.get("wbytes", 0))
    return Statistics(
        cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
        cpu_user_ns=cpu.get("user_usec", 0) * 1000,
        cpu_system_ns=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_bytes=_number(path / "memory.current"),
        memory_max_bytes=_number(path / "memory.peak"),
        memory_limit_bytes=_limit(path / "memory.max"),
        memory_inactive_file_bytes=detail.get("inactive_file", 0),
        memory_detail=detail,
        pids=_number(path / "pids.current"),
        pids_limit=_limit(path / "pids.max"),
        block_read_bytes=read,
        block_write_bytes=written,
    )


def _block_bytes_v1(blkio: Path) -> tuple[int, int]:
    sums = {"Read": 0, "Write": 0}
    for name in ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"):
        text = _text(blkio / name)
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in sums:
                sums[words[1]] += int(words[2])
        if text:
            break
    return sums["Read"], sums["Write"]


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0


def _limit(file: Path) -> int:
    """0 is unlimited."""
    value = _number(file)
    return 0 if value >= _UNLIMITED else value


def _table(file: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(file).splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) == 2 and words[1].isdigit()}
