"""Console events and termination, for a program and all its descendants."""

from __future__ import annotations

import asyncio
import os

import pytest

from silo.errors import GuestError
from silo.isolation.launcher_messages import ConsoleEvent, RunRequest
from tests.system.windows_launcher.conftest import Silo

pytestmark = pytest.mark.system


async def _send(silo: Silo, command: str, event: ConsoleEvent, *, ready: int = 1) -> tuple[int, bytes]:
    """Exit code and output of a program that gets an event when it has said `ready` so many times."""
    null = os.open(os.devnull, os.O_RDWR)
    read, write = os.pipe()
    try:
        program = await silo.client.run(RunRequest(command_line=command), (null, write, null))
        os.close(write)
        seen = b""
        while seen.count(b"ready") < ready:
            seen += await asyncio.to_thread(os.read, read, 1000)
        await silo.client.signal(program.pid, event)
        code = await program.wait()
        while data := await asyncio.to_thread(os.read, read, 1000):
            seen += data
        program.close()
        return code, seen.replace(b"ready\r\n", b"")
    finally:
        os.close(null)
        os.close(read)


@pytest.mark.parametrize(
    ("event", "code", "said"),
    [
        (ConsoleEvent.CTRL_C, 70, b"event-0\r\n"),
        (ConsoleEvent.CTRL_BREAK, 71, b"event-1\r\n"),
        (ConsoleEvent.CTRL_CLOSE, 0xC000013A, b"event-2\r\n"),
        (ConsoleEvent.CTRL_SHUTDOWN, 0xC000013A, b"event-6\r\n"),
        (ConsoleEvent.TERMINATE, 137, b""),
    ],
)
def test_an_event_reaches_the_handler(silo: Silo, event: ConsoleEvent, code: int, said: bytes) -> None:
    assert silo.ask(_send(silo, "C:\\t\\events.exe", event)) == (code, said)


@pytest.mark.parametrize("event", [ConsoleEvent.CTRL_C, ConsoleEvent.CTRL_SHUTDOWN])
def test_descendants_get_it_too(silo: Silo, event: ConsoleEvent) -> None:
    _, said = silo.ask(_send(silo, "C:\\t\\events.exe parent", event, ready=2))
    assert said == f"event-{int(event)}\r\n".encode() * 2


def test_termination_takes_the_descendants_along(silo: Silo) -> None:
    before = len(silo.ask(silo.client.processes()))
    assert silo.ask(_send(silo, "C:\\t\\events.exe parent", ConsoleEvent.TERMINATE, ready=2))[0] == 137
    assert len(silo.ask(silo.client.processes())) <= before


def test_without_a_handler_control_c_ends_a_program_as_on_windows(silo: Silo) -> None:
    assert silo.ask(_send(silo, "C:\\t\\events.exe deaf", ConsoleEvent.CTRL_C)) == (0xC000013A, b"")


def test_a_program_of_windows_is_told_that_the_session_ends(silo: Silo) -> None:
    async def start_and_tell() -> int:
        null = os.open(os.devnull, os.O_RDWR)
        program = await silo.client.run(RunRequest(command_line="C:\\t\\window.exe"), (null, null, null))
        os.close(null)
        while (silo.upper_prefix / "drive_c/window-ready").exists() is False:
            await asyncio.sleep(0.05)
        await silo.client.signal(program.pid, ConsoleEvent.CTRL_SHUTDOWN)
        return await program.wait()

    assert silo.ask(start_and_tell()) == 77


def test_nobody_there(silo: Silo) -> None:
    with pytest.raises(GuestError, match="1168"):
        silo.ask(silo.client.signal(123456, ConsoleEvent.CTRL_C))
    with pytest.raises(GuestError, match="1168"):
        silo.ask(silo.client.signal(0, ConsoleEvent.CTRL_C))
