"""`top` for Linux containers: the host's ps, shown for the container's processes only, as Docker does."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from silo.errors import HostError, InvalidRequest, SiloError
from silo.host.run import run
from silo.model.runtime import ProcessTable

DEFAULT_ARGUMENTS = "-ef"


def load_process_table(pids: Sequence[int], ps_args: str, *, first_host_uid: int = 0) -> ProcessTable:
    """Users are shown as the container knows them, when it has ids of its own from `first_host_uid` on.

    Raises InvalidRequest (ps refused the arguments, or its output has no PID column).
    """
    try:
        words = shlex.split(ps_args or DEFAULT_ARGUMENTS)
    except ValueError as error:
        raise InvalidRequest(f"ps arguments {ps_args!r} cannot be parsed: {error}") from error
    if not pids:
        return select_processes("UID PID PPID C STIME TTY TIME CMD\n", frozenset())
    listed = ",".join(map(str, pids))
    try:
        # -q limits ps to the container's processes; with other selections of the user it fails, and all are listed
        output = run(["ps", *words, "-q", listed], check=False)
        if output.status != 0 or not output.stdout.strip():
            output = run(["ps", *words], timeout_s=30)
    except HostError as error:
        raise _explain(error, ps_args) from error
    table = select_processes(output.stdout.decode(errors="replace"), frozenset(pids))
    return _translate_users(table, first_host_uid) if first_host_uid else table


def _translate_users(table: ProcessTable, first_host_uid: int) -> ProcessTable:
    """ps has no name for such an id and cuts the number off."""
    users = [index for index, title in enumerate(table.titles) if title in ("UID", "USER", "EUSER", "RUSER", "EUID")]
    column = table.titles.index("PID")
    rows = []
    for row in table.rows:
        uid = _user_of(int(row[column])) - first_host_uid
        name = "root" if uid == 0 else str(uid)
        if uid >= 0:
            row = tuple(name if index in users else field for index, field in enumerate(row))
        rows.append(row)
    return ProcessTable(titles=table.titles, rows=tuple(rows))


def _user_of(pid: int) -> int:
    """-1 when the process has ended meanwhile."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    return -1


def _explain(error: SiloError, ps_args: str) -> SiloError:
    return InvalidRequest(f"ps {ps_args}: {error.brief}", details=error.details)


def select_processes(output: str, pids: frozenset[int]) -> ProcessTable:
    """The rows of a ps listing whose PID column is one of `pids`; the last column takes the rest of its line."""
    lines = output.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise InvalidRequest("couldn't find PID field in ps output", hint="do not use -o without pid")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(tuple(fields))
    return ProcessTable(titles=titles, rows=tuple(rows))
