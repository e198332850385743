"""Programs on a pseudo terminal: interactive, resized, interrupted."""

from __future__ import annotations

import os
import re
import select
import struct
import time

import pytest

from silo.isolation.launcher_messages import FLAG_MAIN, FLAG_TTY, RunRequest
from silo.isolation.process.launcher import RunningProgram
from tests.system.windows_launcher.conftest import Make, Silo

pytestmark = pytest.mark.system
_ESCAPES = re.compile(rb"\x1b(\[[?0-9;]*[A-Za-z]|\][^\x07]*\x07)")
_BLANK_LINES = re.compile(rb"(\r\n){3,}")


def _read(terminal: int, until: bytes, timeout_s: float = 15) -> bytes:
    """Text without control sequences, up to `until` or the end; many blank lines are one."""
    seen, end = b"", time.monotonic() + timeout_s
    while until not in _text(seen):
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"only {seen!r}"
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has it open any more
            break
        seen += data
    return _text(seen)


def _text(seen: bytes) -> bytes:
    """What stands there. On a busy machine Wine's console draws a blank line twice, before and after the cursor's move."""
    return _BLANK_LINES.sub(b"\r\n\r\n", _ESCAPES.sub(b"", seen))


class Terminal:
    def __init__(self, silo: Silo, command: str, columns: int = 80, rows: int = 25) -> None:
        self.silo = silo
        self.master, slave = os.openpty()
        request = RunRequest(command_line=command, flags=FLAG_TTY, columns=columns, rows=rows)

        async def start() -> RunningProgram:
            return await silo.client.run(request, (slave,))

        self.program = silo.ask(start())
        os.close(slave)

    def say(self, text: str, until: str) -> str:
        os.write(self.master, text.encode())
        return _read(self.master, until.encode()).decode()

    def end(self) -> int:
        code = self.silo.ask(self.program.wait())
        self.program.close()
        os.close(self.master)
        return code


def test_an_interactive_shell(silo: Silo) -> None:
    terminal = Terminal(silo, "cmd")
    assert "Microsoft Windows" in terminal.say("", "C:\\>")
    assert "\r\nhello\r\n" in terminal.say("echo hello\r", "hello\r\n\r\nC:\\>")
    os.write(terminal.master, b"exit 5\r")
    assert terminal.end() == 5


def test_the_terminal_ends_with_its_program(silo: Silo) -> None:
    terminal = Terminal(silo, "cmd /c echo over")
    assert b"over\r\n" in _read(terminal.master, b"never said")
    assert terminal.end() == 0


def test_control_c_reaches_a_program_that_does_not_read(silo: Silo) -> None:
    terminal = Terminal(silo, "C:\\t\\events.exe")
    terminal.say("", "ready")
    assert "event-0" in terminal.say("\x03", "event-0")
    assert terminal.end() == 70


def test_control_c_ends_a_command_and_not_the_shell(silo: Silo) -> None:
    terminal = Terminal(silo, "cmd")
    terminal.say("", "C:\\>")
    terminal.say("C:\\t\\events.exe deaf\r", "ready")
    terminal.say("\x03", "C:\\>")
    assert "\r\nstill here" in terminal.say("echo still here\r", "here\r\n\r\nC:\\>")
    os.write(terminal.master, b"exit\r")
    terminal.end()


def test_resize_changes_where_lines_break(silo: Silo) -> None:
    terminal = Terminal(silo, "cmd", columns=80, rows=25)
    terminal.say("", "C:\\>")
    word = "0123456789" * 7
    assert f"\r\n{word}\r\n" in terminal.say(f"echo {word}\r", f"\n{word}\r\n\r\nC:\\>")
    silo.ask(silo.client.resize(terminal.program.pid, 40, 10))
    assert f"\r\n{word[:40]}\r\n{word[40:]}\r\n" in terminal.say(f"echo {word}\r", f"\n{word[40:]}\r\n\r\nC:\\>")
    silo.ask(silo.client.resize(terminal.program.pid, 200, 60))
    assert f"\r\n{word}{word}\r\n" in terminal.say(f"echo {word}{word}\r", f"\n{word}{word}\r\n\r\nC:\\>")
    os.write(terminal.master, b"exit\r")
    terminal.end()


def test_the_main_program_on_the_containers_terminal(make_silo: Make) -> None:
    silo = make_silo(terminal=True)

    async def start() -> None:
        request = RunRequest(command_line="cmd", flags=FLAG_MAIN | FLAG_TTY, columns=80, rows=25)
        (await silo.client.run(request)).close()

    silo.ask(start())
    _read(silo.terminal, b"C:\\>")
    silo.ask(silo.client.resize(0, 100, 30))
    os.write(silo.terminal, b"exit 70000\r")
    assert silo.status_code() == 70000
    silo.wait()
    assert struct.pack("<I", 70000)[0] == silo.process.returncode
