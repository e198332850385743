from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.isolation.vm.answers import GuestProcess
from silo.isolation.vm.ps_table import build_process_table

PROCESS = GuestProcess(
    pid=188,
    ppid=1,
    ns_pid=1,
    uid=0,
    gid=0,
    state="S",
    tty=0,
    nice=0,
    threads=2,
    cpu_ms=61_000,
    age_ms=122_000,
    virtual_bytes=4096 << 10,
    resident_bytes=1024 << 10,
    name="httpd",
    command="httpd -f",
)


def test_what_top_shows() -> None:
    table = build_process_table([PROCESS], "")
    assert table.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    row = dict(zip(table.titles, table.rows[0], strict=True))
    assert (row["UID"], row["PID"], row["C"], row["TIME"], row["CMD"]) == ("root", "188", "50", "00:01:01", "httpd -f")


@pytest.mark.parametrize("words", ["-o pid,comm", "-opid,comm", "-eo pid,ucmd", "-o pid -o comm"])
def test_chosen_columns(words: str) -> None:
    table = build_process_table([PROCESS], words)
    assert table.rows == (("188", "httpd"),) and table.titles[0] == "PID"


def test_own_titles() -> None:
    assert build_process_table([PROCESS], "-o pid,rss=MEMORY").titles == ("PID", "MEMORY")


def test_aux() -> None:
    table = build_process_table([PROCESS], "aux")
    assert table.titles[:4] == ("USER", "PID", "%CPU", "%MEM") and table.rows[0][2] == "50.0"


@pytest.mark.parametrize("words", ["--forest", "-o comm", "-o pid,nosuch", "'"])
def test_refused(words: str) -> None:
    with pytest.raises(InvalidRequest):
        build_process_table([PROCESS], words)
