from __future__ import annotations

import os

import pytest

from silo.errors import InvalidRequest
from silo.isolation.process.process_table import load_process_table, select_processes

LISTING = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 20:42 ?        00:00:00 /sbin/init splash
root          22       1  0 20:42 ?        00:00:00 sleep  100
"""


def test_rows_of_the_containers_processes_only() -> None:
    table = select_processes(LISTING, frozenset({22, 99}))
    assert table.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    assert table.rows == (("root", "22", "1", "0", "20:42", "?", "00:00:00", "sleep  100"),)


def test_a_listing_without_pids_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="PID"):
        select_processes("CMD\nsleep\n", frozenset({1}))


@pytest.mark.parametrize("arguments", ["", "-ef", "aux", "-o pid,cmd", "-eo pid,comm"])
def test_the_hosts_ps(arguments: str) -> None:
    table = load_process_table([os.getpid()], arguments)
    assert len(table.rows) == 1 and str(os.getpid()) in table.rows[0]


@pytest.mark.parametrize("arguments", ["--no-such-option", "'unbalanced", "-o cmd"])
def test_bad_arguments(arguments: str) -> None:
    with pytest.raises(InvalidRequest):
        load_process_table([os.getpid()], arguments)
