"""`top` of a Windows container: the columns of Docker for Windows."""

from __future__ import annotations

from collections.abc import Sequence

from silo.isolation.launcher_messages import WindowsProcess
from silo.model.runtime import ProcessTable


def build_windows_table(untrusted_processes: Sequence[WindowsProcess]) -> ProcessTable:
    # Wine answers GetProcessTimes of another process with the caller's own times, so no time is shown at all.
    rows = tuple((item.name, str(item.pid), "-", _size(item.working_set_bytes)) for item in untrusted_processes)
    return ProcessTable(titles=("Name", "PID", "CPU", "Private Working Set"), rows=rows)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.4g}GB"
