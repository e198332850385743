"""top of a whole guest, from what it says of itself."""

from __future__ import annotations

import pytest

from silo.errors import GuestError
from silo.isolation.vm.ps_table import build_process_table
from silo.isolation.vm.whole.processes import parse_processes, parse_tasklist

STAT = "{pid} ({name}) S 1 1 1 0 -1 4194560 9 9 9 9 {user} 50 0 0 20 0 3 0 1000 8192000 200 1844 1 1\n"
STATUS = "Name:\tx\nUid:\t0\t33\t33\t33\nGid:\t0\t34\t34\t34\n"


def said(*processes: tuple[int, str, str]) -> bytes:
    text = "100.50 90.1\n100\n4096\n"
    for pid, name, _ in processes:
        text += f"==> {pid}/stat <==\n{STAT.format(pid=pid, name=name, user=100)}\n"
    for pid, _, command in processes:
        text += f"==> {pid}/cmdline <==\n{command}\n"
    for pid, _, _ in processes:
        text += f"==> {pid}/status <==\n{STATUS}\n"
    return text.encode()


def test_processes_of_a_linux() -> None:
    found = parse_processes(said((7, "a) b (c", "/bin/a\0-x\0y z\0"), (8, "kthread", "")))
    first, second = found
    assert (first.pid, first.ppid, first.uid, first.gid, first.name) == (7, 1, 33, 34, "a) b (c")
    assert (first.command, second.command) == ("/bin/a -x y z", "[kthread]")
    assert (first.cpu_ms, first.age_ms, first.threads, first.resident_bytes) == (1500, 90500, 3, 200 * 4096)
    table = build_process_table(found, "-o pid,args")
    assert table.titles == ("PID", "COMMAND") and table.rows[0] == ("7", "/bin/a -x y z")


def test_one_that_ended_meanwhile_is_left_out_and_nonsense_is_refused() -> None:
    text = said((7, "a", "a")) + b"==> 9/stat <==\ngone\n"
    assert [process.pid for process in parse_processes(text)] == [7]
    for bad in (b"", b"x\n1\n2\n", text.replace(b" S 1 ", b" S x "), text.replace(b"\n100\n", b"\n0\n")):
        with pytest.raises(GuestError):
            parse_processes(bad)


def test_processes_of_a_windows() -> None:
    text = b'"Image Name","PID","Session Name"\r\n"System, Idle","0","Services"\r\n"odd"\r\n'
    table = parse_tasklist(text)
    assert table.titles == ("Image Name", "PID", "Session Name") and table.rows == (("System, Idle", "0", "Services"),)
    with pytest.raises(GuestError):
        parse_tasklist(b"")
