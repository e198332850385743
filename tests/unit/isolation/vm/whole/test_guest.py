"""A whole guest's ends and samples, with a sleeping program in QEMU's place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from silo.errors import HostError, Unavailable, Unsupported
from silo.isolation.vm.machine import Console
from silo.isolation.vm.process import Process
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.whole.boot import Record
from silo.isolation.vm.whole.guest import WholeGuest
from silo.isolation.vm.whole.guest_agent import GuestAgent
from silo.isolation.vm.whole.launch import RunningQemu
from tests.unit.isolation.vm.whole.fake_agent import FakeAgent, Refusal


class FakeMonitor:
    """`deadly` is the command that the guest ends of."""

    def __init__(self, sleeping: subprocess.Popen[bytes]) -> None:
        self.sleeping = sleeping
        self.deadly = "quit"
        self.seen: list[str] = []
        self.closed = asyncio.Event()

    async def execute(self, command: str, **arguments: Any) -> Any:
        self.seen.append(command)
        if command == self.deadly:
            self.end()
        return {}

    def end(self) -> None:
        self.sleeping.kill()
        self.sleeping.wait()
        self.closed.set()

    async def wait_closed(self) -> None:
        await self.closed.wait()

    def close(self) -> None:
        self.closed.set()


@contextlib.asynccontextmanager
async def guest_in(folder: Path) -> AsyncIterator[tuple[WholeGuest, FakeMonitor, FakeAgent]]:
    sleeping = subprocess.Popen(["sleep", "60"])
    monitor, fake = FakeMonitor(sleeping), FakeAgent()
    process = Process(sleeping.pid)
    serial, other = socket.socketpair()
    record = Record(qemu=(process.pid, process.started), memory_bytes=1 << 30)
    qemu = RunningQemu(process, cast(QmpClient, monitor))
    guest = WholeGuest(folder, record, qemu, Console(serial), serial)
    guest.agent = GuestAgent(fake.connect)
    try:
        yield guest, monitor, fake
    finally:
        guest.close()
        fake.close()
        other.close()
        sleeping.kill()
        sleeping.wait()


Body = Callable[[WholeGuest, FakeMonitor, FakeAgent], Awaitable[None]]


def scenario(folder: Path, body: Body) -> None:
    async def whole() -> None:
        async with guest_in(folder) as parts:
            await body(*parts)

    asyncio.run(asyncio.wait_for(whole(), 20))


def silent(arguments: Any) -> None:
    return None


def test_stopped_by_the_agent(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        def shut_down(arguments: Any) -> bytes:
            guest._take_event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
            monitor.end()
            return b"hang up"

        fake.answers["guest-shutdown"] = shut_down
        ending = asyncio.create_task(guest.wait())
        assert await guest.stop(10)
        assert (await ending).code == 0 and "system_powerdown" not in monitor.seen

    scenario(tmp_path, body)


def test_stopped_by_the_button_when_the_agent_is_silent_or_refuses(tmp_path: Path) -> None:
    def refuse(arguments: Any) -> None:
        raise Refusal("CommandNotFound", "blocked")

    for answers in ({"guest-sync-delimited": silent}, {"guest-shutdown": refuse}):

        async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent, answers: Any = answers) -> None:
            fake.answers |= answers
            monitor.deadly = "system_powerdown"
            assert await guest.stop(2)
            assert "cont" in monitor.seen

        scenario(tmp_path, body)


def test_ended_at_the_limit_when_nothing_helps(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        began = time.monotonic()
        assert not await guest.stop(1)
        assert 0.9 < time.monotonic() - began < 3
        assert monitor.seen[-2:] == ["system_powerdown", "quit"] and not guest.process.is_alive

    scenario(tmp_path, body)


def test_a_machine_whose_monitor_is_broken_is_killed(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        monitor.closed.set()
        ending = await guest.wait()
        assert ending.code == 137 and not guest.process.is_alive

    scenario(tmp_path, body)


def test_letting_go_is_no_end(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        guest.close()
        with pytest.raises(Unavailable, match="let go"):
            await guest.wait()
        assert guest.process.is_alive

    scenario(tmp_path, body)


def test_a_windows_takes_programs_as_they_are(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        fake.answers["guest-get-osinfo"] = lambda _: {"id": "mswindows"}
        fake.answers["guest-exec"] = lambda _: {"pid": 4}
        with pytest.raises(Unsupported, match="neither environment nor directory nor user"):
            await guest.start_program(("cmd.exe",), cwd="C:\\")
        assert await guest.start_program(("cmd.exe", "/c", "ver")) == 4
        fake.answers["guest-exec-status"] = lambda _: {"exited": True, "exitcode": 0}
        await guest.signal(4, 15)
        assert fake.seen[-2][1]["path"] == "taskkill.exe"

    scenario(tmp_path, body)


def test_one_count_of_processor_time_for_a_machines_life(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        fake.answers["guest-get-cpustats"] = lambda _: [{"user": 5, "system": 0}]
        assert (await guest.statistics()).cpu_user_ns == 5_000_000
        fake.answers["guest-get-cpustats"] = lambda _: b"hang up"
        with pytest.raises(Unavailable):
            await guest.statistics()

    async def without(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        fake.answers["guest-get-cpustats"] = lambda _: b"hang up"
        first = await guest.statistics()
        fake.answers["guest-get-cpustats"] = lambda _: [{"user": 10**9, "system": 0}]
        assert (await guest.statistics()).cpu_user_ns < 10**9 and first.memory_bytes > 0

    scenario(tmp_path, body)
    scenario(tmp_path, without)


def test_finding_one_again(tmp_path: Path) -> None:
    async def whole() -> None:
        assert await WholeGuest.adopt(tmp_path) is None
        (tmp_path / "machine.json").write_bytes(msgspec.json.encode(Record(qemu=(1, 1), memory_bytes=1)))
        assert await WholeGuest.adopt(tmp_path) is None
        (tmp_path / "machine.json").write_bytes(b"{")
        with pytest.raises(HostError, match=r"machine\.json cannot be read"):
            await WholeGuest.adopt(tmp_path)

    asyncio.run(whole())
