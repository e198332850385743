"""A whole guest as a runtime handles it: started of a plan, found again by a daemon that comes back, stopped, ended.

    guest = await WholeGuest.start(plan, on_output=log.write)
    await guest.wait_for_agent(120)
    done = await guest.execute(("/bin/uname", "-a"))
    await guest.stop(30)

<store>/      kept with the container
  overlay.qcow2, base.json   what the guest has changed (disk.py)
  variables.fd               UEFI's, of this machine
  tpm/                       swtpm's state
<directory>/  while it runs
  monitor.sock agent.sock serial.sock   QEMU listens
  screen.sock                the daemon listens: each connection is one of VNC
  machine.json               which processes these are
  swtpm.log
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import GuestError, HostError, SiloError, Unavailable, Unsupported
from silo.isolation.vm.machine import Console
from silo.isolation.vm.process import Process
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.whole.boot import LISTENERS, Events, Record, WholePlan, connect_at, start_programs
from silo.isolation.vm.whole.command import HUB, NIC_ID
from silo.isolation.vm.whole.disk import open_disk
from silo.isolation.vm.whole.guest_agent import Executed, GuestAgent, OsInfo, wrap_posix
from silo.isolation.vm.whole.guest_files import GuestFiles
from silo.isolation.vm.whole.launch import RunningQemu
from silo.isolation.vm.whole.screen import SOCKET_NAME, Screen
from silo.isolation.vm.whole.statistics import poll_memory, read_statistics
from silo.model.exit_codes import KILLED
from silo.model.runtime import Statistics

_AGENT_ASKED_LIMIT_S = 3.0
Output = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class WholeEnd:
    """How a machine ended. `code` is 0 when the guest has shut itself down, asked or not, and KILLED otherwise."""

    code: int
    untrusted_reason: str


class WholeGuest:
    """A machine that runs until it is ended, whatever becomes of the daemon."""

    def __init__(
        self, directory: Path, record: Record, qemu: RunningQemu, console: Console, serial: socket.socket
    ) -> None:
        self.directory = directory
        self.process = qemu.process
        self.console = console
        self.agent = GuestAgent(self._connect_agent)
        self.screen = Screen(directory, qemu.monitor)
        self._record = record
        self._qemu = qemu
        self._serial = serial
        self._os: OsInfo | None = None
        self._agent_counts: bool | None = None
        self._untrusted_reason = ""
        self._released = False

    @classmethod
    async def start(
        cls, plan: WholePlan, *, tap: int = -1, held: bool = False, on_output: Output = lambda _: None
    ) -> WholeGuest:
        """Boot it, or with `held` have it all there and wait for `unpause`.

        `tap` is the network interface's other end (a tap without a header of virtio-net may come later, too).

        `on_output` gets what the guest writes to its first serial line. Raises ToolMissing, NotFound, InvalidRequest and Conflict
        about the disk, HostError with QEMU's complaint; nothing runs then.
        """
        async with contextlib.AsyncExitStack() as undo:
            disk = await open_disk(plan.machine.disk, uid=plan.uid)
            with contextlib.closing(disk):
                events = Events()
                qemu, tpm = await start_programs(plan, disk, tap, events)
            undo.push_async_callback(qemu.end)
            record = Record(
                qemu=(qemu.process.pid, qemu.process.started),
                tpm=(tpm.pid, tpm.started) if tpm else (0, 0),
                memory_bytes=plan.machine.memory_bytes,
            )
            (plan.directory / "machine.json").write_bytes(msgspec.json.encode(record))
            guest = cls._join(plan.directory, record, qemu, on_output, events)
            undo.push_async_callback(guest.end)
            await poll_memory(qemu.monitor)
            if tap < 0:
                await set_link(qemu.monitor, up=False)
            if not held:
                await qemu.monitor.execute("cont")
            undo.pop_all()
        return guest

    @classmethod
    async def adopt(cls, directory: Path, *, on_output: Output = lambda _: None) -> WholeGuest | None:
        """The machine that an earlier daemon has started in `directory`; None when it has ended. Raises HostError, Unavailable."""
        try:
            record = msgspec.json.decode((directory / "machine.json").read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise HostError(f"{directory}/machine.json cannot be read", details=str(error)) from error
        process = Process(*record.qemu)
        if not process.is_alive:
            return None
        events = Events()
        connection = connect_at(directory, "monitor.sock")
        try:
            monitor = await QmpClient.connect(connection, events.take)
        except BaseException:
            connection.close()
            raise
        return cls._join(directory, record, RunningQemu(process, monitor), on_output, events)

    @classmethod
    def _join(cls, directory: Path, record: Record, qemu: RunningQemu, on_output: Output, events: Events) -> WholeGuest:
        serial = connect_at(directory, "serial.sock")
        guest = cls(directory, record, qemu, Console(serial, on_output), serial)
        events.listener = guest._take_event
        guest.screen.open()
        return guest

    def _take_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._untrusted_reason = str(data.get("reason", ""))[:100]

    # --- the guest's agent

    def _connect_agent(self) -> socket.socket:
        return connect_at(self.directory, "agent.sock")

    async def wait_for_agent(self, limit_s: float) -> OsInfo:
        """Raises Unavailable with the last lines of the serial line when the agent does not answer in time."""
        try:
            await self.agent.wait_until_ready(limit_s)
            return await self.os_info()
        except Unavailable as error:
            raise Unavailable(
                error.brief, details=self.console.last_lines() or error.details, hint=error.hint
            ) from error

    async def os_info(self) -> OsInfo:
        if self._os is None:
            self._os = await self.agent.os_info()
        return self._os

    async def files(self) -> GuestFiles:
        """For `cp`."""
        return GuestFiles(self.agent, windows=(await self.os_info()).is_windows)

    async def start_program(
        self, words: Sequence[str], *, env: Sequence[str] = (), cwd: str = "", user: str = "", input: bytes = b""
    ) -> int:
        """A program beside what the guest runs; answers its pid in the guest, for `agent.poll`, `agent.wait`, `signal`.

        Raises ProcessStartFailed, Unsupported (of a Windows guest: environment, directory, user), Unavailable.
        """
        if env or cwd or user:
            if (await self.os_info()).is_windows:
                raise Unsupported(
                    "the agent of a Windows guest takes neither environment nor directory nor user for a program",
                    hint='use cmd /c "set NAME=VALUE && cd /d FOLDER && PROGRAM"',
                )
            words = wrap_posix(words, env=env, cwd=cwd, user=user)
        return await self.agent.start(words, input=input)

    async def execute(self, words: Sequence[str], **options: Any) -> Executed:
        """`start_program` and its end."""
        return await self.agent.wait(await self.start_program(words, **options))

    async def signal(self, pid: int, number: int) -> None:
        """To a program started by `start_program`; one that has ended is not an error. In Windows every signal ends it."""
        if (await self.os_info()).is_windows:
            await self.agent.run(("taskkill.exe", "/f", "/t", "/pid", str(pid)))
        else:
            # the shell's own: a small guest has no program of that name
            await self.agent.run(("/bin/sh", "-c", 'kill "-$1" "$2"', "silo", str(number), str(pid)))

    async def statistics(self) -> Statistics:
        """Once the agent has counted processor time, it alone does for this machine. Raises Unavailable."""
        monitor, pid, memory_bytes = self._qemu.monitor, self.process.pid, self._record.memory_bytes
        if self._agent_counts is not False:
            try:
                sample, self._agent_counts = await read_statistics(
                    monitor, self.agent, pid, memory_bytes, of_guest=True
                )
                return sample
            except (Unsupported, Unavailable, GuestError):
                if self._agent_counts:
                    raise
                self._agent_counts = False
        return (await read_statistics(monitor, None, pid, memory_bytes, of_guest=False))[0]

    # --- the machine

    async def write_serial(self, data: bytes) -> None:
        """To the guest's first serial line, where a Linux may have a terminal."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._serial, data)
        except OSError as error:
            raise Unavailable("the virtual machine has ended", details=str(error)) from error

    async def plug_network(self, tap: int) -> None:
        """Put a tap (made without IFF_VNET_HDR) behind the interface of a machine that was started without one."""
        await self._qemu.monitor.execute("getfd", descriptors=[tap], fdname="uplink")
        await self._qemu.monitor.execute("netdev_add", type="tap", id="uplink", fd="uplink")
        await self._qemu.monitor.execute("netdev_add", type="hubport", id="uplink-port", hubid=HUB, netdev="uplink")
        await set_link(self._qemu.monitor, up=True)

    async def unplug_network(self) -> None:
        await set_link(self._qemu.monitor, up=False)
        for name in ("uplink-port", "uplink"):
            await self._qemu.monitor.execute("netdev_del", id=name)

    async def pause(self) -> None:
        await self._qemu.monitor.execute("stop")

    async def unpause(self) -> None:
        await self._qemu.monitor.execute("cont")

    async def wait(self) -> WholeEnd:
        """Until nothing of it runs, by itself or by `stop` and `end`. Raises Unavailable when `close` comes first."""
        await self._qemu.monitor.wait_closed()
        if self._released:
            raise Unavailable("the machine was let go")
        # one that has broken its monitor's protocol runs on, and nobody can speak to it
        with contextlib.suppress(TimeoutError):
            await self.process.until_dead(_AGENT_ASKED_LIMIT_S)
        await self.process.kill()
        code = 0 if self._untrusted_reason == "guest-shutdown" else KILLED
        return WholeEnd(code, self._untrusted_reason)

    async def stop(self, limit_s: float) -> bool:
        """Shut down by the agent, else by the power button, else at the limit by ending it. True: the guest did it itself."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        with contextlib.suppress(SiloError):
            # a guest that is paused could not hear of it
            await self._qemu.monitor.execute("cont")
        asked = await self.ask_to_shut_down(min(_AGENT_ASKED_LIMIT_S, limit_s / 2))
        ended = asked and await self.ends_within((deadline - loop.time()) / 2)
        if not ended:
            await self.press_power_button()
            ended = await self.ends_within(deadline - loop.time())
        await self.end()
        return ended

    async def press_power_button(self) -> None:
        """What that does is the guest's choice."""
        with contextlib.suppress(SiloError):
            await self._qemu.monitor.execute("system_powerdown")

    async def ask_to_shut_down(self, limit_s: float = _AGENT_ASKED_LIMIT_S) -> bool:
        """By its agent. False when that does not answer."""
        try:
            await self.agent.ping(limit_s)
            await self.agent.shut_down()
        except SiloError:
            return False
        return True

    async def ends_within(self, limit_s: float) -> bool:
        try:
            await self.process.until_dead(max(limit_s, 0))
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Nothing of it runs when this returns. Idempotent."""
        await self._qemu.end()
        await Process(*self._record.tpm).kill()
        self._let_go()
        for name in (*LISTENERS, SOCKET_NAME, "machine.json"):
            (self.directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it; it runs on, for `adopt`."""
        self._released = True
        self._let_go()

    def _let_go(self) -> None:
        self.screen.close()
        self.agent.close()
        self.console.close()
        self._qemu.monitor.close()


async def set_link(monitor: QmpClient, *, up: bool) -> None:
    """An interface with nothing behind it has to know: a frame that waits for somebody to take it blocks all later ones."""
    await monitor.execute("set_link", name=NIC_ID, up=up)
