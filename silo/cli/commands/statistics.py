"""`stats`: what containers use, as a table that is drawn anew every second."""

from __future__ import annotations

import os
import sys
import time

from silo.cli.client import container_path
from silo.cli.failure import ApiError, DaemonUnreachable
from silo.cli.grammar import Command
from silo.cli.listing import render_listing, write
from silo.cli.units import binary_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

    Sample = dict[str, Any]

INTERVAL_S = 1.0
_COLUMNS = (
    ("ID", "CONTAINER ID"), ("Name", "NAME"), ("CPUPerc", "CPU %"), ("MemUsage", "MEM USAGE / LIMIT"), ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"), ("BlockIO", "BLOCK I/O"), ("PIDs", "PIDS"),
)  # fmt: skip
_TITLES = {**dict(_COLUMNS), "Container": "CONTAINER"}


def cpu_percent(now: Sample, before: Sample | None) -> float:
    """Of one processor, between two samples."""
    if not before:
        return 0.0
    used = now["cpu_stats"]["cpu_usage"]["total_usage"] - before["cpu_stats"]["cpu_usage"]["total_usage"]
    host = now["cpu_stats"].get("system_cpu_usage", 0) - before["cpu_stats"].get("system_cpu_usage", 0)
    if used <= 0 or host <= 0:
        return 0.0
    return float(used / host * now["cpu_stats"].get("online_cpus", 1) * 100)


def memory_used(memory: Sample) -> int:
    """Without the page cache that can be given back at once."""
    detail = memory.get("stats") or {}
    usage = int(memory.get("usage", 0))
    cache = int(detail.get("total_inactive_file", detail.get("inactive_file", 0)))
    return usage - cache if 0 < cache < usage else usage


def fields(name: str, now: Sample, before: Sample | None, *, truncate: bool) -> dict[str, str]:
    """One row; a container that does not run has dashes."""
    memory = now.get("memory_stats") or {}
    if not memory:
        row = dict.fromkeys(("CPUPerc", "MemPerc", "PIDs"), "--")
        row |= dict.fromkeys(("MemUsage", "NetIO", "BlockIO"), "-- / --")
    else:
        used, limit = memory_used(memory), int(memory.get("limit", 0))
        networks = (now.get("networks") or {}).values()
        blocks: dict[str, int] = {}
        for entry in (now.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
            operation = str(entry["op"]).lower()
            blocks[operation] = blocks.get(operation, 0) + entry["value"]
        received, sent = sum(row["rx_bytes"] for row in networks), sum(row["tx_bytes"] for row in networks)
        row = {
            "CPUPerc": f"{cpu_percent(now, before):.2f}%",
            "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
            "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
            "NetIO": f"{human_size(received)} / {human_size(sent)}",
            "BlockIO": f"{human_size(blocks.get('read', 0))} / {human_size(blocks.get('write', 0))}",
            "PIDs": str((now.get("pids_stats") or {}).get("current", 0)),
        }
    number = str(now.get("id", ""))
    return {
        **row,
        "ID": number[:12] if truncate else number,
        "Container": name,
        "Name": str(now.get("name", "")).removeprefix("/"),
    }


def _sample(client: Client, names: list[str], *, strict: bool) -> dict[str, Sample]:
    found = {}
    for name in names:
        try:
            found[name] = client.get(container_path(name, "/stats"), {"stream": "0", "one-shot": "1"})
        except DaemonUnreachable:
            raise
        except ApiError as error:
            # It has gone since it was listed.
            if strict or error.http_status not in (404, 409):
                raise
    return found


def _names(client: Client, values: Values) -> list[str]:
    if values.arguments:
        return values.arguments
    found = client.get("/containers/json", {"all": "1" if values.flag("all") else ""})
    return [container["Id"][:12] for container in found]


def stats(client: Client, values: Values) -> int:
    form, truncate = values.text("format"), not values.flag("no-trunc")
    live = not values.flag("no-stream")
    screen = live and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"
    before = _sample(client, _names(client, values), strict=bool(values.arguments))
    while True:
        time.sleep(INTERVAL_S)
        now = _sample(client, _names(client, values), strict=False)
        rows = [fields(name, sample, before.get(name), truncate=truncate) for name, sample in now.items()]
        lines = render_listing(rows, _COLUMNS, form, _TITLES)
        if screen:
            write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        else:
            write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        if not live:
            return 0
        before = now


COMMANDS = (
    Command("stats", "[OPTIONS] [CONTAINER...]", "Display a live stream of containers' resource usage statistics",
            (
                ("all", "a", "bool", "Show all containers (default shows just running)"),
                ("format", "", "string", "table, json, or a template such as '{{.Name}} {{.CPUPerc}}'"),
                ("no-stream", "", "bool", "Only pull the first result"),
                ("no-trunc", "", "bool", "Do not truncate output"),
            ), stats, takes="containers", examples=("silo stats --no-stream",)),
)  # fmt: skip
