"""A real QEMU in its jail: what it sees, what it may do, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from silo.host.run import HOST_ENVIRONMENT
from silo.isolation.vm.command import Accelerator, Descriptors, Machine, Role, build_qemu
from silo.isolation.vm.jail import Jail, build_jail
from silo.isolation.vm.memory import create_memory, seal_memory
from silo.isolation.vm.qmp import QmpClient
from tests.support.probes import require_program, require_root

UID = 1_800_000_000
MACHINE = Machine(memory_bytes=64 << 20, accelerator=Accelerator.TCG)


@dataclass
class Running:
    """A QEMU without a guest: `pid` is its own, not bubblewrap's."""

    monitor: QmpClient
    process: subprocess.Popen[bytes]
    pid: int

    def status(self, name: str) -> list[str]:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.split()[1:]
        raise KeyError(name)


@asynccontextmanager
async def qemu(
    folder: Path, *, memory: int, role: Role = Role.TEMPLATE, jail: Jail | None = None
) -> AsyncIterator[Running]:
    async with AsyncExitStack() as undo:
        sockets = [undo.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for name, listener in zip(("monitor", "agent"), sockets, strict=True):
            listener.bind(str(folder / f"{name}-{memory}-{role}"))
            listener.listen(1)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        descriptors = Descriptors(sockets[0].fileno(), sockets[1].fileno(), theirs.fileno(), memory)
        argv = build_jail(jail or Jail(uid=UID), build_qemu(MACHINE, descriptors, role))
        passed = [*(listener.fileno() for listener in sockets), theirs.fileno(), memory]
        process = subprocess.Popen(argv, pass_fds=passed, env=HOST_ENVIRONMENT, stdin=subprocess.DEVNULL)
        undo.callback(process.wait)
        undo.callback(process.kill)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(folder / f"monitor-{memory}-{role}"))
        monitor = await QmpClient.connect(connection)
        undo.callback(monitor.close)
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        undo.callback(_end, pid)
        yield Running(monitor, process, pid)


def _end(pid: int) -> None:
    """QEMU outlives bubblewrap, which a test that fails would leave behind."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if "qemu" in str(Path(f"/proc/{pid}/exe").readlink()):
            os.kill(pid, 9)
    except (ProcessLookupError, FileNotFoundError):
        pass
    finally:
        os.close(handle)


def scenario(folder: Path, body: Callable[[int], Awaitable[None]]) -> None:
    require_root()
    require_program("qemu-system-x86_64", "qemu-system-x86")
    require_program("bwrap", "bubblewrap")
    memory = create_memory(MACHINE.memory_bytes)
    try:
        asyncio.run(asyncio.wait_for(body(memory), 60))
    finally:
        os.close(memory)


def test_it_is_nobody_and_sees_nothing_of_the_host(tmp_path: Path) -> None:
    async def body(memory: int) -> None:
        async with qemu(tmp_path, memory=memory) as running:
            root = Path(f"/proc/{running.pid}/root")
            assert {path.name for path in root.iterdir()} == {"bin", "dev", "guest", "lib", "lib64", "proc", "usr"}
            assert {path.name for path in (root / "usr/bin").iterdir()} == {"nsenter", "qemu-system-x86_64", "setpriv"}
            assert not any((root / "guest").iterdir()) and not (root / "dev/kvm").exists()
            assert set(running.status("Uid")) == set(running.status("Gid")) == {str(UID)}
            assert running.status("Groups") == []
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(running.status(name)[0], 16) == 0
            assert running.status("NoNewPrivs") == ["1"] and running.status("Seccomp") == ["2"]
            for kind in ("mnt", "pid", "net", "ipc", "uts"):
                assert Path(f"/proc/{running.pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
            assert len(Path(f"/proc/{running.pid}/net/dev").read_text().splitlines()) == 3  # the loopback alone

    scenario(tmp_path, body)


def test_a_guests_file_is_shown_read_only(tmp_path: Path) -> None:
    async def body(memory: int) -> None:
        file = tmp_path / "disk"
        file.write_text("content")
        async with qemu(tmp_path, memory=memory, jail=Jail(uid=UID, files={"/guest/disk": file})) as running:
            shown = Path(f"/proc/{running.pid}/root/guest/disk")
            assert shown.read_text() == "content"
            mounts = Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()
            options = [
                line.split()[5].split(",")
                for line in mounts
                if line.split()[4] in ("/guest/disk", "/", "/usr/bin/setpriv")
            ]
            assert len(options) == 3 and all("ro" in words for words in options)

    scenario(tmp_path, body)


def test_quit_leaves_nothing(tmp_path: Path) -> None:
    async def body(memory: int) -> None:
        async with qemu(tmp_path, memory=memory) as running:
            await running.monitor.execute("quit")
            await running.monitor.wait_closed()
            assert running.process.wait(5) == 0
            assert not Path(f"/proc/{running.pid}").exists()

    scenario(tmp_path, body)


def test_killing_the_parent_leaves_the_machine_and_killing_it_ends_all(tmp_path: Path) -> None:
    async def body(memory: int) -> None:
        async with qemu(tmp_path, memory=memory) as running:
            running.process.kill()
            running.process.wait()
            assert (await running.monitor.execute("query-status"))["status"] == "prelaunch"
            os.kill(running.pid, 9)
            async with asyncio.timeout(5):
                await running.monitor.wait_closed()

    scenario(tmp_path, body)


def test_a_clone_runs_on_sealed_memory_which_a_running_template_prevents(tmp_path: Path) -> None:
    async def body(memory: int) -> None:
        async with qemu(tmp_path, memory=memory) as template:
            with pytest.raises(Exception, match="still runs"):
                seal_memory(memory)
            await template.monitor.execute("quit")
            await template.monitor.wait_closed()
            template.process.wait(5)
        seal_memory(memory)
        async with qemu(tmp_path, memory=memory, role=Role.CLONE, jail=Jail(uid=UID + 1)) as clone:
            assert (await clone.monitor.execute("query-status"))["status"] == "inmigrate"

    scenario(tmp_path, body)
