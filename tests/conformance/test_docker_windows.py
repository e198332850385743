"""The docker client and Windows containers."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Docker
from tests.conformance.terminal import Terminal

pytestmark = pytest.mark.system


def test_ver_and_exit_codes(windows: Docker) -> None:
    assert "Microsoft Windows" in windows("run", "--rm", "windows", "cmd", "/c", "ver")
    # The whole 32 bits are the container's; the client itself can only exit with eight of them.
    windows.try_("run", "--name", "code", "windows", "cmd", "/c", "exit 300")
    assert windows.inspect("code")["State"]["ExitCode"] == 300


def test_words_of_windows(windows: Docker, tmp_path: object) -> None:
    folder = str(tmp_path)
    where = windows("run", "--rm", "-w", "C:\\work", "windows", "cmd", "/c", "cd")
    assert where.strip() == "C:\\work"
    assert windows("run", "--rm", "-e", "A=two words", "windows", "cmd", "/c", "echo %A%").strip() == "two words"
    windows("run", "--rm", "-v", f"{folder}:C:\\data", "windows", "cmd", "/c", "echo hello> C:\\data\\file.txt")
    shown = windows("run", "--rm", "-v", f"{folder}:C:\\data", "windows", "cmd", "/c", "type C:\\DATA\\FILE.TXT")
    assert shown.strip() == "hello"
    name = windows("run", "--rm", "--hostname", "silobox", "windows", "cmd", "/c", "echo %COMPUTERNAME%")
    assert name.strip().lower() == "silobox"


def test_a_life_with_exec_top_logs_and_stop(windows: Docker) -> None:
    windows("run", "-d", "--name", "wlife", "windows", "cmd", "/c", "echo started & ping -n 1000 127.0.0.1 > nul")
    assert windows("exec", "wlife", "cmd", "/c", "echo inside").strip() == "inside"
    assert windows.try_("exec", "wlife", "cmd", "/c", "exit 5").returncode == 5
    assert "cmd.exe" in windows("top", "wlife").lower()
    assert windows("logs", "wlife").startswith("started")
    windows("stop", "-t", "2", "wlife")
    assert windows.inspect("wlife")["State"]["Status"] == "exited"


def test_stdin_piped_in(windows: Docker) -> None:
    assert "needle" in windows(
        "run", "-i", "--rm", "windows", "cmd", "/c", "findstr needle", stdin=b"hay\r\nneedle\r\n"
    )


def test_a_console(windows: Docker) -> None:
    terminal = Terminal(windows, "run", "-it", "--rm", "windows", "cmd")
    terminal.expect(b">", 60)
    terminal.type(b"echo con^sole\r")
    terminal.expect(b"console")
    terminal.type(b"exit 7\r")
    assert terminal.end() == 7


def test_files_of_a_container(windows: Docker, tmp_path: object) -> None:
    windows("run", "--name", "wfiles", "windows", "cmd", "/c", "echo kept> C:\\kept.txt")
    windows("cp", "wfiles:C:\\kept.txt", str(tmp_path))
    assert any("kept.txt" in line for line in windows("diff", "wfiles").splitlines())
    windows("commit", "wfiles", "wmade:1")
    assert windows("run", "--rm", "wmade:1", "cmd", "/c", "type C:\\kept.txt").strip() == "kept"
    windows("rm", "wfiles")
    windows("rmi", "wmade:1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["windows", "C:\\no\\such.exe"], "not found"),
        (["--cap-add", "NET_ADMIN", "windows", "cmd"], "--cap-add"),
        (["-w", "relative", "windows", "cmd"], "relative"),
    ],
)
def test_what_cannot_be(windows: Docker, flags: list[str], words: str) -> None:
    done = windows.try_("run", "--rm", *flags)
    assert done.returncode in (125, 126, 127) and words in done.stderr
