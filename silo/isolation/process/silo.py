"""Windows containers: pid 1 is started by crun as any program, everything after that goes through the launcher inside.

The launcher's answers are untrusted and concern its own container only. What must not hang on it does not: a container that
does not end when its main program is terminated is killed from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
import socket
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from silo.errors import GuestError, SiloError, Unavailable
from silo.host import namespaces
from silo.isolation.launcher_messages import FLAG_MAIN, FLAG_NO_FLUSH, ConsoleEvent, console_event, run_request
from silo.isolation.process.keeper_containers import set_size
from silo.isolation.process.launcher import LauncherClient, RunningProgram
from silo.isolation.process.live import Live
from silo.isolation.process.record import Paths
from silo.isolation.process.streams import close_streams, make_pipes
from silo.isolation.windows_table import build_windows_table
from silo.model.exit_codes import KILLED
from silo.model.runtime import ExecStreams, LaunchPlan, ProcessTable

log = logging.getLogger(__name__)

Answered = TypeVar("Answered")

SOCKET_NAME = "launcher.sock"
PROCESSORS = "SILO_PROCESSORS"
"""The variable that tells the launcher which processors there will be (see CgroupTree.narrow)."""
_READY_PATIENCE_S = 120.0
_TERMINATE_PATIENCE_S = 5.0


def processor_mask(processors: Iterable[int]) -> int:
    """As Windows has it: bit n is processor n; a process of the first group knows 64."""
    return sum(1 << number for number in processors if number < 64)


def bind_launcher_socket(bundle: Path) -> int:
    """The listening socket that the container inherits; it is no file of the container."""
    path = bundle / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # a path through a descriptor, because socket addresses are at most 107 bytes long
            listener.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        finally:
            os.close(directory)
        path.chmod(0o600)
        listener.listen(64)
        return listener.detach()


class Silos:
    """What is done to Windows containers; `Live` is as for Linux."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._programs: dict[str, set[WindowsExec]] = {}

    def client(self, live: Live) -> LauncherClient:
        return LauncherClient(self._paths.bundle(live.id) / SOCKET_NAME)

    async def start_main(self, live: Live) -> None:
        """Raises ProcessStartFailed, GuestError, HostError."""
        launch = live.record.plan.launch
        assert launch is not None
        flags = FLAG_MAIN | (FLAG_NO_FLUSH if live.record.plan.auto_remove else 0)
        started = await self.until_end(live, self.client(live).run(run_request(launch, flags)))
        # the code comes through the status pipe; the program runs on without this connection
        started.close()

    async def until_end(self, live: Live, request: Coroutine[Any, Any, Answered]) -> Answered:
        """The answer to a request before the main program runs. Raises GuestError, Unavailable, and what the request does."""
        asked = asyncio.create_task(request)
        ended = asyncio.create_task(live.ended.wait())
        try:
            await asyncio.wait({asked, ended}, timeout=_READY_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                if live.exit is not None:
                    raise GuestError(
                        "the container ended before its program could be started", details=_last_words(live)
                    )
                raise Unavailable(
                    f"the container was not ready within {_READY_PATIENCE_S:.0f} s", details=_last_words(live)
                )
            return await asked
        finally:
            for task in (asked, ended):
                task.cancel()

    async def signal(self, live: Live, signal: int) -> None:
        """As `console_event` says."""
        event = console_event(signal)
        if event is ConsoleEvent.TERMINATE:
            await self._terminate(live)
        elif event is not None:
            await self.client(live).signal(0, event)

    async def _terminate(self, live: Live) -> None:
        if not live.record.plan.auto_remove:
            # in order, so that the registry is written
            with contextlib.suppress(SiloError, OSError, TimeoutError):
                async with asyncio.timeout(_TERMINATE_PATIENCE_S):
                    await self.client(live).signal(0, ConsoleEvent.TERMINATE)
                    await live.ended.wait()
                    return
        namespaces.kill_process(live.record.pid, signals.SIGKILL, started=live.record.pid_started)

    async def resize(self, live: Live, rows: int, columns: int) -> None:
        await self.client(live).resize(0, columns, rows)

    async def processes(self, live: Live) -> ProcessTable:
        found = await self.client(live).processes()
        return build_windows_table(found)

    async def exec(self, live: Live, launch: LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool) -> WindowsExec:
        """Raises ProcessStartFailed, GuestError."""
        wanted = (stdin, stdout, stderr)
        streams, theirs = _open_terminal(launch) if launch.tty else make_pipes(Path("/dev/null"), wanted)
        try:
            program = await self.client(live).run(run_request(launch), theirs)
        except BaseException:
            close_streams(streams)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        running = WindowsExec(self, live, program, streams)
        self._programs.setdefault(live.id, set()).add(running)
        return running

    def forget(self, running: WindowsExec) -> None:
        self._programs.get(running.live.id, set()).discard(running)

    def container_ended(self, container_id: str) -> None:
        for running in self._programs.pop(container_id, set()):
            running.end(KILLED)


class WindowsExec:
    """See silo.engine.ports.RunningExec."""

    def __init__(self, silos: Silos, live: Live, program: RunningProgram, streams: ExecStreams) -> None:
        self.live = live
        self.pid = program.pid
        self.streams = streams
        self._silos = silos
        self._program = program
        self._terminal = os.dup(streams.terminal) if streams.terminal is not None else -1
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(), name=f"exec-{self.pid}")

    async def _watch(self) -> None:
        try:
            self.end(await self._program.wait())
        except (SiloError, OSError) as error:
            log.info("exec %d in %s: %s", self.pid, self.live.id[:12], error)
            self.end(KILLED)
        finally:
            self._program.close()

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)
            self._silos.forget(self)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            set_size(self._terminal, rows, columns)
            await self._silos.client(self.live).resize(self.pid, columns, rows)

    async def signal(self, signal: int) -> None:
        event = console_event(signal)
        if event is not None and not self._ended.done():
            with contextlib.suppress(GuestError):
                await self._silos.client(self.live).signal(self.pid, event)


def _open_terminal(launch: LaunchPlan) -> tuple[ExecStreams, list[int]]:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    if launch.console_size:
        set_size(ours, *launch.console_size)
    return ExecStreams(terminal=ours), [theirs]


def _last_words(live: Live) -> str:
    with contextlib.suppress(OSError), (live.record.plan.directory / "log").open("rb") as records:
        size = records.seek(0, os.SEEK_END)
        records.seek(max(0, size - 1000))
        return records.read(1000).decode(errors="replace")
    return ""
