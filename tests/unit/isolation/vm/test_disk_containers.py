"""Containers that boot a disk: their programs, files, addresses and ends, without a machine."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from silo.errors import Conflict, InvalidRequest, ProcessStartFailed, Unavailable, Unsupported
from silo.isolation.vm.answers import PathStatus
from silo.isolation.vm.disk_container import DiskContainer, DiskRecord, exit_record
from silo.isolation.vm.disk_containers import DEFAULT_MEMORY_BYTES, machine_memory
from silo.isolation.vm.disk_exec import DiskExec
from silo.isolation.vm.disk_files import DiskFiles, in_guest
from silo.isolation.vm.disk_network import Card, build_lease
from silo.isolation.vm.guest_log import GuestLog
from silo.isolation.vm.whole.guest import WholeEnd, WholeGuest
from silo.isolation.vm.whole.guest_files import GuestFiles
from silo.isolation.vm.wires import Interface
from silo.model.container import Resources
from silo.model.runtime import ProcessPlan
from tests.support.machines import machine_plan
from tests.unit.isolation.vm.whole.fake_agent import FakeAgent, Refusal
from tests.unit.isolation.vm.whole.test_guest import FakeMonitor, guest_in


def scenario(folder: Path, body: Callable[[WholeGuest, FakeMonitor, FakeAgent], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with guest_in(folder) as parts:
            await body(*parts)

    asyncio.run(asyncio.wait_for(whole(), 20))


def container(folder: Path, guest: WholeGuest, **changes: Any) -> DiskContainer:
    record = DiskRecord(
        plan=machine_plan(folder), first_id=1, pid=1, memory_bytes=1 << 30, **({"started": True} | changes)
    )
    return DiskContainer(record, guest, GuestLog(folder, 0), Card(guest, record.plan))


def program(fake: FakeAgent, code: int, out: bytes, err: bytes, **more: Any) -> list[Any]:
    """What the agent was asked to run."""
    seen: list[Any] = []

    def run(arguments: Any) -> dict[str, int]:
        seen.append(arguments)
        return {"pid": 42}

    output = {"out-data": base64.b64encode(out).decode(), "err-data": base64.b64encode(err).decode()}
    fake.answers["guest-exec"] = run
    fake.answers["guest-exec-status"] = lambda _: {"exited": True, "exitcode": code, **output, **more}
    return seen


async def read_all(descriptor: int | None) -> bytes:
    assert descriptor is not None
    os.set_blocking(descriptor, True)
    with open(descriptor, "rb") as file:
        return await asyncio.to_thread(file.read)


EVERY = {"stdin": False, "stdout": True, "stderr": True}


def test_a_program_and_its_long_output(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        seen = program(fake, 7, bytes(300_000), b"err", **{"err-truncated": True})
        running = await DiskExec.start(guest, ProcessPlan(args=("prog", "x"), cwd=""), **EVERY)
        assert running.pid == 42 and running.streams.stdin is None
        out, err = await asyncio.gather(read_all(running.streams.stdout), read_all(running.streams.stderr))
        assert out == bytes(300_000) and err.startswith(b"errsilo: the guest agent keeps 16 MiB")
        assert await running.wait() == 7 and seen[0]["path"] == "prog" and seen[0]["arg"] == ["x"]

    scenario(tmp_path, body)


def test_input_is_read_to_its_end_first(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        seen = program(fake, 0, b"done", b"")
        running = await DiskExec.start(guest, ProcessPlan(args=("cat",), cwd=""), stdin=True, stdout=True, stderr=False)
        assert running.streams.stdin is not None and running.streams.stderr is None
        os.write(running.streams.stdin, b"in")
        await asyncio.sleep(0.05)
        assert not seen and running.pid == 0
        os.close(running.streams.stdin)
        assert await read_all(running.streams.stdout) == b"done" and await running.wait() == 0
        assert base64.b64decode(seen[0]["input-data"]) == b"in"

    scenario(tmp_path, body)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    def refuse(_: Any) -> None:
        raise Refusal("GenericError", "Failed to execute child process (No such file or directory)")

    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        fake.answers["guest-exec"] = refuse
        words = ProcessPlan(args=("none",), cwd="")
        with pytest.raises(ProcessStartFailed):
            await DiskExec.start(guest, words, **EVERY)
        with pytest.raises(Unsupported, match="exec -t"):
            await DiskExec.start(guest, ProcessPlan(args=("sh",), tty=True), **EVERY)
        running = await DiskExec.start(guest, words, stdin=True, stdout=False, stderr=True)
        assert running.streams.stdin is not None
        os.close(running.streams.stdin)
        assert b"'none' cannot be started" in await read_all(running.streams.stderr)
        assert await running.wait() == 127

    scenario(tmp_path, body)


def test_a_machine_that_goes_takes_its_programs_with_it(tmp_path: Path) -> None:
    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        program(fake, 0, b"", b"")
        fake.answers["guest-exec-status"] = lambda _: {"exited": False}
        running = await DiskExec.start(guest, ProcessPlan(args=("sleep",), cwd=""), **EVERY)
        running.abandon()
        assert await running.wait() == 137
        assert await read_all(running.streams.stdout) == b"" == await read_all(running.streams.stderr)

    scenario(tmp_path, body)


def test_an_agent_that_does_not_answer_is_taught_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.isolation.vm.disk_container._AGENT_LIMIT_S", 0.1)

    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        fake.answers["guest-sync-delimited"] = lambda _: None
        with pytest.raises(Unavailable, match="exec needs the guest agent") as refused:
            await container(tmp_path, guest).check_agent("exec")
        assert "install qemu-guest-agent" in refused.value.hint
        with pytest.raises(Conflict, match="paused: unpause it before cp"):
            await container(tmp_path, guest, paused=True).check_agent("cp")

    scenario(tmp_path, body)


def test_how_a_machine_ended(tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_text("qemu: it broke\n")

    async def body(guest: WholeGuest, monitor: FakeMonitor, fake: FakeAgent) -> None:
        there = container(tmp_path, guest)
        record = exit_record(WholeEnd(0, "guest-shutdown"), there, out_of_memory=False)
        assert (record.exit_code, record.error) == (0, "")
        record = exit_record(WholeEnd(137, ""), there, out_of_memory=True)
        assert (record.exit_code, record.oom_killed) == (137, True) and "qemu: it broke" in record.error
        there.killed = True
        assert exit_record(WholeEnd(137, "host-qmp-quit"), there, out_of_memory=False).error == ""

    scenario(tmp_path, body)


def test_memory_of_a_machine() -> None:
    assert machine_memory(Resources()) == DEFAULT_MEMORY_BYTES
    assert machine_memory(Resources(memory_bytes=(300 << 20) + 5)) == 300 << 20
    with pytest.raises(InvalidRequest, match="at least 128m"):
        machine_memory(Resources(memory_bytes=64 << 20))


def test_what_the_guest_is_told_of_its_network(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 172.17.0.1\nnameserver ::1\nsearch a.example b.example\n")
    interface = Interface(
        name="eth0",
        mac="02:00:00:00:00:01",
        mtu=1400,
        addresses=("fd00::5/64", "172.17.0.5/16"),
        gateways=("fd00::1", "172.17.0.1"),
    )
    lease = build_lease(interface, machine_plan(tmp_path))
    assert lease is not None
    assert (str(lease.address), str(lease.gateway), lease.mtu) == ("172.17.0.5/16", "172.17.0.1", 1400)
    assert ([str(server) for server in lease.name_servers], lease.domain) == (["172.17.0.1"], "a.example")
    assert lease.hostname == "box"
    only_6 = Interface(name="eth0", mac="", mtu=1500, addresses=("fd00::5/64",))
    assert build_lease(only_6, machine_plan(tmp_path / "none")) is None


class FakeFiles:
    """Links and directories by name."""

    def __init__(self, links: dict[str, str]) -> None:
        self.links = links

    async def stat(self, path: str) -> PathStatus:
        place = "/" + path.removesuffix("/.").strip("/")
        link = self.links.get(place, "")
        mode = 0o120777 if link else 0o040755 if place.startswith("/d") else 0o100644
        name = place.rpartition("/")[2]
        return PathStatus(name=name, mode=mode, size=1, mtime_ns=0, uid=0, gid=0, link=link, target_mode=0)


def test_links_in_the_guest() -> None:
    files = DiskFiles(cast(GuestFiles, FakeFiles({"/a/link": "../dir", "/round": "round"})))

    async def body() -> None:
        shown = await files.stat("/a/link")
        assert (shown["name"], shown["linkTarget"]) == ("link", "/dir")
        assert (await files.stat("/a/link/."))["linkTarget"] == ""
        with pytest.raises(InvalidRequest, match="link to a link"):
            await files.stat("/round/")
        with pytest.raises(InvalidRequest, match="not a directory"):
            await files.write("/file", cast(Any, None), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
        with pytest.raises(Unsupported):
            files.export()

    asyncio.run(body())
    assert (in_guest("/etc/x"), in_guest("/C:/Users"), in_guest("/C:\\Users")) == ("/etc/x", "C:/Users", "C:\\Users")
