"""What happens to a container by itself: its output grows, its program ends, its machine is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from silo.engine.ports import RuntimeListener
from silo.errors import SiloError
from silo.isolation import run_files
from silo.isolation.vm.agent_streams import GuestReader
from silo.isolation.vm.answers import Exit
from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.executing import VmExec
from silo.isolation.vm.session import FOLDERS, IMAGE, ROOT, SCRATCH
from silo.model.clock import now
from silo.model.exit_codes import KILLED
from silo.model.log import STDERR, STDOUT
from silo.model.runtime import ExitRecord

log = logging.getLogger(__name__)

_LAST_OUTPUT_S = 5.0
_RECONNECT_LIMIT_S = 10.0
_SYNC_LIMIT_S = 60.0
_PANIC = "Kernel panic"
_PANIC_LINES = 400
_CONSOLE_TAIL = 1500
"""Characters of the console that an error carries."""


class Watcher:
    def __init__(self, listener: RuntimeListener, memory_kills: Callable[[str], int]) -> None:
        """`memory_kills`: by the name of a machine, how many of its processes the host's kernel killed at its limit of memory."""
        self._listener = listener
        self._memory_kills = memory_kills

    def watch(self, container: VmContainer) -> None:
        """From the moment that its main program runs."""
        main = container.main
        assert main is not None
        pumps = [
            self._spawn(container, self._pump(container, reader, stream))
            for reader, stream in ((main.stdout, STDOUT), (main.stderr, STDERR))
            if reader is not None
        ]
        container.clone.session.on_lost = lambda reason: self._lost(container, reason)
        self._spawn(container, self._await_end(container, pumps))
        if not container.clone.session.client.is_connected:
            # it went while nobody listened
            self._lost(container, None)

    def _spawn(self, container: VmContainer, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"vm-{container.id[:12]}")
        container.tasks.add(task)
        task.add_done_callback(container.tasks.discard)
        return task

    async def _pump(self, container: VmContainer, reader: GuestReader, stream: int) -> None:
        """What is in the log is acknowledged, and only that."""
        with contextlib.suppress(SiloError):
            while piece := await reader.read():
                container.log.append(stream, piece)
                self._listener.on_output(container.id)
            reader.acknowledge()

    async def _await_end(self, container: VmContainer, pumps: list[asyncio.Task[None]]) -> None:
        assert container.main is not None
        exit = await container.main.wait()
        if pumps:
            # its descendants have ended with it; what is still to come is on its way
            await asyncio.wait(pumps, timeout=_LAST_OUTPUT_S)
        if not container.releasing:
            await self._settle(container)
            self.end(container, exit_record(exit))

    async def _settle(self, container: VmContainer) -> None:
        """What the container wrote is on its disk, whoever looks at it next."""
        if container.record.plan.rootfs.volatile:
            return
        session = container.clone.session
        try:
            async with asyncio.timeout(_SYNC_LIMIT_S):
                with contextlib.suppress(SiloError):
                    await session.unmount([FOLDERS])
                await session.unmount([ROOT, SCRATCH, IMAGE])
        except (SiloError, TimeoutError):
            with contextlib.suppress(SiloError):
                await session.client.request("sync", timeout_s=_SYNC_LIMIT_S)

    def end(self, container: VmContainer, record: ExitRecord) -> None:
        """Once: whatever comes first."""
        if container.exit is not None:
            return
        container.exit = record
        with contextlib.suppress(OSError):
            run_files.save(container.record.plan.directory / "exit.json", record)
        for running in tuple(container.execs):
            if isinstance(running, VmExec):
                running.abandon()
        container.execs.clear()
        if container.announced:
            self.announce(container)

    def announce(self, container: VmContainer) -> None:
        assert container.exit is not None
        if container.exit.oom_killed:
            self._listener.on_out_of_memory(container.id)
        self._listener.on_exit(container.id, container.exit)

    def _lost(self, container: VmContainer, reason: SiloError | None) -> None:
        if not container.releasing and container.exit is None:
            self._spawn(container, self._examine(container, reason))

    async def _examine(self, container: VmContainer, reason: SiloError | None) -> None:
        """The connection to the agent is gone. Has the machine ended, and why? One that talks nonsense is ended."""
        vm, session = container.clone.vm, container.clone.session
        if vm.alive and reason is None:
            # QEMU closes its sockets a moment before it is gone
            await asyncio.sleep(0.1)
        if vm.alive and reason is None:
            with contextlib.suppress(SiloError):
                await session.connect(limit_s=_RECONNECT_LIMIT_S)
                container.remap()
                return
        words = vm.console.last_lines()
        out_of_memory = not vm.alive and self._memory_kills(container.clone.name) > 0
        if panic := _find_panic(vm.console.last_lines(_PANIC_LINES)):
            error = f"the virtual machine's kernel panicked:\n{panic}"
        elif out_of_memory:
            error = "the virtual machine was killed at its limit of memory on the host"
        elif reason is not None:
            error = _with_console(f"the virtual machine was ended: {reason.brief}", words)
        else:
            error = _with_console("the virtual machine has ended unexpectedly", words)
        await self._end_machine(container, error, out_of_memory=out_of_memory)

    async def end_machine(self, container: VmContainer, reason: str) -> None:
        """Of a guest that cannot be relied on any more; the container's end is told."""
        words = container.clone.vm.console.last_lines()
        await self._end_machine(container, _with_console(f"the virtual machine was ended: {reason}", words))

    def expect_end(self, container: VmContainer, limit_s: float) -> None:
        """Its program was killed: a guest that does not say so in time is ended."""
        self._spawn(container, self._expect_end(container, limit_s))

    async def _expect_end(self, container: VmContainer, limit_s: float) -> None:
        assert container.main is not None
        try:
            async with asyncio.timeout(limit_s):
                await container.main.wait()
        except TimeoutError:
            if container.exit is None and not container.releasing:
                await self.end_machine(container, f"its program was killed and did not end within {limit_s:.0f} s")

    async def _end_machine(self, container: VmContainer, error: str, *, out_of_memory: bool = False) -> None:
        vm, session = container.clone.vm, container.clone.session
        log.error("container %s: %s", container.id[:12], error)
        session.on_lost = lambda _: None
        session.client.close()
        await vm.end()
        record = ExitRecord(exit_code=KILLED, finished_at=now(), error=error, oom_killed=out_of_memory)
        self.end(container, record)


def _find_panic(words: str) -> str:
    """From the line that says why; the stack that follows may be longer than what is shown of a console elsewhere."""
    at = words.find(_PANIC)
    return words[words.rfind("\n", 0, at) + 1 :][:_CONSOLE_TAIL] if at >= 0 else ""


def _with_console(error: str, words: str) -> str:
    return f"{error}\nthe console's last lines:\n{words[-_CONSOLE_TAIL:]}" if words else error


def exit_record(exit: Exit) -> ExitRecord:
    """The guest's clock is its own: the time is ours."""
    return ExitRecord(exit_code=exit.code, finished_at=now(), oom_killed=exit.oom)


def load_exit(container_directory: Path) -> ExitRecord | None:
    return run_files.load(container_directory / "exit.json", ExitRecord)
