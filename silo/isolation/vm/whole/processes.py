"""`top` of a whole guest, by its agent: what a Linux shows in /proc, or what tasklist prints in Windows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import msgspec

from silo.errors import GuestError
from silo.isolation.vm.answers import GuestProcess
from silo.isolation.vm.ps_table import build_process_table
from silo.isolation.vm.whole.guest import WholeGuest
from silo.model.runtime import ProcessTable

# a small guest has no ps; head prints each file's name before it
_LOOK = """
cat /proc/uptime; getconf CLK_TCK 2>/dev/null || echo 100; getconf PAGESIZE 2>/dev/null || echo 4096
cd /proc && head -v -c 4096 [0-9]*/stat [0-9]*/cmdline [0-9]*/status 2>/dev/null; true
"""
_HEADING = re.compile(r"^==> (\d+)/(stat|cmdline|status) <==\n", re.MULTILINE)
_TASKLIST = ("tasklist.exe", "/fo", "csv")
_MOST_NAME, _MOST_COMMAND = 60, 4000


async def list_processes(guest: WholeGuest, ps_args: str) -> ProcessTable:
    """Raises InvalidRequest for arguments of ps that are not among the usual ones, GuestError, Unavailable."""
    if (await guest.os_info()).is_windows:
        done = await guest.execute(_TASKLIST)
        return parse_tasklist(done.untrusted_stdout)
    done = await guest.execute(("/bin/sh", "-c", _LOOK))
    return build_process_table(parse_processes(done.untrusted_stdout), ps_args)


def parse_tasklist(untrusted_text: bytes) -> ProcessTable:
    rows = [tuple(row) for row in csv.reader(io.StringIO(untrusted_text.decode(errors="replace"))) if row]
    if not rows:
        raise GuestError("the guest's tasklist has printed nothing")
    return ProcessTable(titles=rows[0], rows=tuple(row for row in rows[1:] if len(row) == len(rows[0])))


def parse_processes(untrusted_text: bytes) -> list[GuestProcess]:
    """A process that ended meanwhile is left out. Raises GuestError."""
    text = untrusted_text.decode(errors="replace")
    try:
        uptime, ticks, page_bytes, rest = text.split("\n", 3)
        uptime_ms, ticks_s = int(float(uptime.split()[0]) * 1000), int(ticks)
        found: dict[str, dict[str, str]] = {}
        for pid, name, content in _split(rest):
            found.setdefault(pid, {})[name] = content
        whole = [files for files in found.values() if len(files) == 3]
        return [_process(files, uptime_ms, ticks_s, int(page_bytes)) for files in whole]
    except (ValueError, LookupError, ZeroDivisionError, OverflowError, msgspec.ValidationError) as error:
        raise GuestError("the guest's list of processes cannot be read", details=str(error)) from None


def _split(untrusted_text: str) -> Iterator[tuple[str, str, str]]:
    pieces = _HEADING.split(untrusted_text)
    for at in range(1, len(pieces) - 2, 3):
        yield pieces[at], pieces[at + 1], pieces[at + 2]


def _process(files: dict[str, str], uptime_ms: int, ticks_s: int, page_bytes: int) -> GuestProcess:
    """The fields are those of proc(5)."""
    head, _, tail = files["stat"].rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    ids = {key: value.split() for key, _, value in (line.partition(":") for line in files["status"].splitlines())}
    words = files["cmdline"].rstrip("\n\0").replace("\0", " ")
    values = {
        "pid": int(pid),
        "ppid": int(fields[1]),
        "ns_pid": int(pid),
        "uid": int(ids["Uid"][1]),
        "gid": int(ids["Gid"][1]),
        "state": fields[0],
        "tty": int(fields[4]),
        "nice": int(fields[16]),
        "threads": int(fields[17]),
        "cpu_ms": (int(fields[11]) + int(fields[12])) * 1000 // ticks_s,
        "age_ms": max(0, uptime_ms - int(fields[19]) * 1000 // ticks_s),
        "virtual_bytes": int(fields[20]),
        "resident_bytes": max(0, int(fields[21])) * page_bytes,
        "name": name[:_MOST_NAME],
        "command": (words or f"[{name}]")[:_MOST_COMMAND],
    }
    return msgspec.convert(values, GuestProcess)
