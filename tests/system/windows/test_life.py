"""A Windows container's life: output, exec, top, stop, kill, consoles, ports, and a registry that stays with it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.terminal import Terminal
from tests.system.windows.conftest import Windows

pytestmark = pytest.mark.system

SAY = "C:\\tests\\say.exe"
CTRL_C, CTRL_SHUTDOWN = 0, 6
KILLED = 137


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def resize(terminal: Terminal, rows: int, columns: int) -> None:
    """As a terminal does it: the size, then the signal, which only the foreground of a session would get by itself. It is given
    again and again, since docker listens for it only some time after the program's first output."""
    terminal.resize(rows, columns)
    for _ in range(20):
        terminal.process.send_signal(signal.SIGWINCH)
        with contextlib.suppress(AssertionError):
            terminal.expect(f"size {columns}x{rows}".encode(), 1)
            return
    raise AssertionError(f"the console did not become {columns} x {rows}: {terminal.seen!r}")


def start_ready(windows: Windows, name: str, *words: str, flags: tuple[str, ...] = ()) -> None:
    """A container whose say.exe is ready for events."""
    windows.docker("run", "-d", "--name", name, *windows.mount, *flags, "windows", SAY, *words)
    until(lambda: "ready" in windows.docker("logs", name))


def test_stop_is_a_shutdown_event_that_a_handler_can_answer(windows: Windows) -> None:
    start_ready(windows, "polite", "events")
    windows.docker("stop", "-t", "20", "polite")
    assert windows.docker("logs", "polite").split("\n") == ["ready", f"event {CTRL_SHUTDOWN}"]
    assert windows.exit_code("polite") == 20 + CTRL_SHUTDOWN


def test_stop_kills_what_does_not_end_in_time(windows: Windows) -> None:
    start_ready(windows, "deaf", "deaf")
    began = time.monotonic()
    windows.docker("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 10
    assert f"event {CTRL_SHUTDOWN}" in windows.docker("logs", "deaf")
    assert windows.exit_code("deaf") == KILLED


def test_kill_asks_nobody(windows: Windows) -> None:
    start_ready(windows, "killed", "events")
    windows.docker("kill", "killed")
    windows.docker("wait", "killed")
    assert windows.docker("logs", "killed") == "ready"
    assert windows.exit_code("killed") == KILLED


def test_an_interrupt_is_ctrl_c(windows: Windows) -> None:
    start_ready(windows, "interrupted", "events")
    windows.docker("kill", "-s", "INT", "interrupted")
    assert windows.docker("wait", "interrupted") == str(20 + CTRL_C)


def test_a_signal_that_linux_programs_ignore_ends_nothing(windows: Windows) -> None:
    start_ready(windows, "resized", "events")
    windows.docker("kill", "-s", "WINCH", "resized")
    time.sleep(0.5)
    assert windows.docker("logs", "resized") == "ready"
    windows.docker("kill", "-s", "USR1", "resized")
    assert windows.docker("wait", "resized") == str(20 + CTRL_SHUTDOWN)


def test_exec_top_and_logs_of_a_running_one(windows: Windows) -> None:
    start_ready(windows, "busy", "deaf")
    assert windows.docker("exec", "busy", "cmd", "/c", "echo inside").strip() == "inside"
    table = windows.docker("top", "busy").lower()
    assert "say.exe" in table and "services.exe" in table
    windows.docker("exec", "-d", "busy", "cmd", "/c", "echo later> C:\\later.txt")
    until(lambda: windows.docker.try_("exec", "busy", "cmd", "/c", "type C:\\later.txt").stdout.strip() == "later")
    assert windows.docker("logs", "--tail", "1", "busy") == "ready"


def test_programs_of_an_exec_end_with_their_container(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "brief", *windows.mount, "windows", "cmd")
    waiting = windows.docker.start("exec", "brief", SAY, "deaf")
    windows.docker("kill", "brief")
    waiting.wait(20)
    assert waiting.stdout is not None
    waiting.stdout.close()


def test_a_console_follows_its_window(windows: Windows) -> None:
    terminal = Terminal(windows.docker, "run", "-it", "--rm", "--name", "sized", *windows.mount, "windows", SAY, "size")
    terminal.expect(b"size 80x24", 30)
    resize(terminal, 40, 132)
    windows.docker("kill", "sized")
    assert terminal.end() == KILLED


def test_a_console_of_an_exec(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "consoles", *windows.mount, "windows", "cmd")
    terminal = Terminal(windows.docker, "exec", "-it", "consoles", SAY, "size")
    terminal.expect(b"size 80x24", 30)
    resize(terminal, 30, 100)
    windows.docker("rm", "-f", "consoles")
    terminal.end()


def test_ctrl_c_typed_at_a_console(windows: Windows) -> None:
    terminal = Terminal(windows.docker, "run", "-it", "--name", "typed", *windows.mount, "windows", SAY, "events")
    terminal.expect(b"ready", 30)
    terminal.type(b"\x03")
    terminal.expect(b"event 0", 30)
    assert terminal.end() == 20 + CTRL_C
    assert windows.exit_code("typed") == 20 + CTRL_C


def test_without_a_terminal_there_is_none(windows: Windows) -> None:
    done = windows.docker.try_("run", "--rm", *windows.mount, "windows", SAY, "size")
    assert done.stdout.startswith("no console")


def test_a_published_port_of_a_python_server(windows: Windows, programs: Path) -> None:
    mount = ("-v", f"{programs}:C:\\programs:ro")
    server = ("C:\\programs\\python\\python.exe", "-m", "http.server", "8000", "--directory", "C:\\site")
    flags = ("-p", "127.0.0.1:18080:8000", "-v", f"{windows.tests}:C:\\site:ro")
    windows.docker("run", "-d", "--name", "web", *mount, *flags, "windows", *server)
    fetch = windows.docker.silod.within_network("curl", "-sf", "--max-time", "5", "http://127.0.0.1:18080/junk.exe")
    until(lambda: subprocess.run(fetch, capture_output=True).stdout == b"this is not a program\n", 40)


def test_a_published_port_of_a_node_server(windows: Windows, programs: Path) -> None:
    script = "require('http').createServer((q, r) => r.end('node on ' + process.platform)).listen(3000)"
    mount = ("-v", f"{programs}:C:\\programs:ro", "-p", "18081:3000")
    windows.docker("run", "-d", "--name", "node", *mount, "windows", "C:\\programs\\node.exe", "-e", script)
    fetch = windows.docker.silod.within_network("curl", "-sf", "--max-time", "5", "http://127.0.0.1:18081/")
    until(lambda: subprocess.run(fetch, capture_output=True).stdout == b"node on win32", 40)


def test_anybody_may_listen_at_a_low_port_and_ping(windows: Windows, programs: Path) -> None:
    script = "import socket; server = socket.create_server(('0.0.0.0', 80)); print(server.getsockname()[1])"
    command = ("windows", "C:\\programs\\python\\python.exe", "-c", script)
    mount = ("-v", f"{programs}:C:\\programs:ro")
    assert windows.docker("run", "--rm", "-u", "ContainerUser", *mount, *command).strip() == "80"
    said = windows.docker("run", "--rm", "-u", "ContainerUser", "windows", "ping", "-n", "1", "127.0.0.1")
    assert "Received = 1" in said


KEY = "HKLM\\Software\\SiloTest"


def _query(windows: Windows, *before: str) -> subprocess.CompletedProcess[str]:
    return windows.docker.try_(*before, "reg", "query", KEY, "/v", "mark")


def test_the_registry_is_part_of_a_container(windows: Windows, tmp_path: Path) -> None:
    docker = windows.docker
    docker("run", "--name", "keeper", "windows", "reg", "add", KEY, "/v", "mark", "/d", "kept", "/f")
    changes = docker("diff", "keeper")
    assert any(line.endswith("system.reg") or "HKLM" in line for line in changes.splitlines()), changes
    docker("commit", "keeper", "kept:1")
    assert "kept" in _query(windows, "run", "--rm", "kept:1").stdout
    assert _query(windows, "run", "--rm", "windows").returncode != 0
    docker("export", "-o", str(tmp_path / "keeper.tar"), "keeper")
    with tarfile.open(tmp_path / "keeper.tar") as archive:
        registry = next(member for member in archive if member.name.endswith("prefix/system.reg"))
        file = archive.extractfile(registry)
        assert file is not None
        assert b"SiloTest" in file.read()
    docker("rm", "keeper")
    docker("rmi", "kept:1")


@pytest.mark.parametrize("user", ["ContainerAdministrator", "ContainerUser"])
def test_the_registry_of_a_running_container_is_up_to_date(windows: Windows, user: str, tmp_path: Path) -> None:
    docker, name = windows.docker, f"live-{user.lower()}"
    docker("run", "-di", "-u", user, "--name", name, "windows", "cmd")
    docker("exec", name, "reg", "add", KEY, "/v", "mark", "/d", "kept", "/f")
    docker("exec", name, "reg", "add", "HKCU\\Software\\SiloTest", "/v", "mine", "/d", "too", "/f")
    changes = docker("diff", name).splitlines()
    assert "A HKLM\\Software\\SiloTest" in changes and "A HKCU\\Software\\SiloTest" in changes
    docker("commit", name, f"{name}:1")
    assert "kept" in _query(windows, "run", "--rm", f"{name}:1").stdout
    found = docker("run", "--rm", "-u", user, f"{name}:1", "reg", "query", "HKCU\\Software\\SiloTest")
    assert "too" in found
    docker("export", "-o", str(tmp_path / "live.tar"), name)
    with tarfile.open(tmp_path / "live.tar") as archive:
        names = [member.name for member in archive]
        registry = archive.extractfile(next(each for each in names if each.endswith("prefix/system.reg")))
        assert registry is not None and b"SiloTest" in registry.read()
        assert not [each for each in names if each.endswith(".saving")]
    # and Wine reads what was written so
    docker("restart", "-t", "1", name)
    assert "kept" in _query(windows, "exec", name).stdout
    docker("rm", "-f", name)
    docker("rmi", f"{name}:1")


def test_the_registry_stays_over_stop_and_start_and_a_kill_of_the_daemon(windows: Windows) -> None:
    docker = windows.docker
    docker("run", "-di", "--name", "long", "windows", "cmd")
    docker("exec", "long", "reg", "add", KEY, "/v", "mark", "/d", "kept", "/f")
    docker.silod.kill()
    docker.silod.start()
    assert "kept" in _query(windows, "exec", "long").stdout
    docker("restart", "-t", "1", "long")
    assert "kept" in _query(windows, "exec", "long").stdout


def test_an_untouched_container_has_no_changes(windows: Windows) -> None:
    windows.docker("run", "--name", "still", "windows", "cmd", "/c", "ver")
    assert windows.docker("diff", "still") == ""


def test_a_windows_image_is_one(windows: Windows) -> None:
    (image,) = json.loads(windows.docker("image", "inspect", "windows"))
    assert (image["Os"], image["Architecture"]) == ("windows", "amd64")
    assert image["OsVersion"].startswith("10.0.20348.")


def test_restart_policy_and_health(windows: Windows) -> None:
    docker = windows.docker
    command = ("windows", SAY, "exit", "300")
    docker("run", "-d", "--name", "again", "--restart", "on-failure:2", *windows.mount, *command)
    until(lambda: docker.inspect("again")["RestartCount"] == 2 and not docker.inspect("again")["State"]["Running"], 60)
    assert windows.exit_code("again") == 300
    health = ("--health-cmd", "if exist C:\\well.txt (exit 0) else (exit 1)", "--health-interval", "1s")
    docker("run", "-di", "--name", "patient", *health, "--health-retries", "1", "windows", "cmd")
    until(lambda: docker.inspect("patient")["State"]["Health"]["Status"] == "unhealthy", 30)
    docker("exec", "patient", "cmd", "/c", "echo x> C:\\well.txt")
    until(lambda: docker.inspect("patient")["State"]["Health"]["Status"] == "healthy", 30)
