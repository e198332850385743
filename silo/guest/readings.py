"""A container's use of the machine (cgroup v2), and its processes (/proc): the guest has no ps."""

from __future__ import annotations

import contextlib
import os
import time

_MAXIMUM_PROCESSES = 4096
_ARGUMENT_BYTES = 512
_UNLIMITED = 1 << 62

Statistics = dict[str, object]


def read_statistics(cgroup: str) -> Statistics:
    """The fields of silo.model.runtime.Statistics; a file that this kernel lacks counts as 0."""
    cpu = _table(f"{cgroup}/cpu.stat")
    detail = _table(f"{cgroup}/memory.stat")
    read = written = 0
    for line in _text(f"{cgroup}/io.stat").splitlines():
        values = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
        read += int(values.get("rbytes", 0))
        written += int(values.get("wbytes", 0))
    return {
        "cpu_total_ns": cpu.get("usage_usec", 0) * 1000,
        "cpu_user_ns": cpu.get("user_usec", 0) * 1000,
        "cpu_system_ns": cpu.get("system_usec", 0) * 1000,
        "periods": cpu.get("nr_periods", 0),
        "throttled_periods": cpu.get("nr_throttled", 0),
        "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
        "memory_bytes": _number(f"{cgroup}/memory.current"),
        "memory_max_bytes": _number(f"{cgroup}/memory.peak"),
        "memory_limit_bytes": _limit(f"{cgroup}/memory.max"),
        "memory_inactive_file_bytes": detail.get("inactive_file", 0),
        "memory_detail": detail,
        "pids": _number(f"{cgroup}/pids.current"),
        "pids_limit": _limit(f"{cgroup}/pids.max"),
        "block_read_bytes": read,
        "block_write_bytes": written,
    }


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        return file.read()
    return ""


def _number(path: str) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _limit(path: str) -> int:
    value = _number(path)
    return 0 if value >= _UNLIMITED else value


def _table(path: str) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) == 2 and words[1].isdigit()}


def read_processes(cgroup: str, first: int) -> list[dict[str, object]]:
    """One entry a process. Without a cgroup: those in the pid namespace of `first`."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for pid in _members(cgroup, first)[:_MAXIMUM_PROCESSES]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(_describe(pid, ticks, now))
    return found


def _members(cgroup: str, first: int) -> list[int]:
    if cgroup:
        listed = [int(line) for line in _text(f"{cgroup}/cgroup.procs").split()]
        with contextlib.suppress(OSError):
            for below in os.scandir(cgroup):
                if below.is_dir(follow_symlinks=False):
                    listed += _members(below.path, first)
        if listed:
            return listed
    namespace = os.stat(f"/proc/{first}/ns/pid").st_ino  # noqa: PTH116
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:  # noqa: PTH116
                    found.append(int(name))
    return sorted(found)


def _describe(pid: int, ticks: int, now: float) -> dict[str, object]:
    """`pid` and `ppid` are the guest's; `ns_pid` is the container's own number."""
    text = _text(f"/proc/{pid}/stat")
    # a program may have blanks and brackets in its name
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    status = dict(line.split(":\t", 1) for line in _text(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(_ARGUMENT_BYTES).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    started = int(fields[19]) / ticks
    return {
        "pid": pid,
        "ppid": int(fields[1]),
        "ns_pid": int(status.get("NSpid", str(pid)).split()[-1]),
        "uid": int(status["Uid"].split()[1]),
        "gid": int(status["Gid"].split()[1]),
        "state": fields[0],
        "tty": int(fields[4]),
        "nice": int(fields[16]),
        "threads": int(fields[17]),
        "cpu_ms": (int(fields[11]) + int(fields[12])) * 1000 // ticks,
        "age_ms": max(0, int((now - started) * 1000)),
        "virtual_bytes": int(fields[20]),
        "resident_bytes": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        "name": name[:64],
        "command": words or f"[{name[:64]}]",
    }
