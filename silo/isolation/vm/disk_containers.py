"""Containers that boot a disk: whole machines (whole/guest.py) with the life of a container.

The machine is the container's program. Its console, the first serial line, is the log and the input; its end is the container's
end. What happens inside goes through the guest agent, if the disk's system has one. Methods are those of
silo.engine.ports.Runtime, for containers whose plan has a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec

from silo.engine.ports import RootFiles, RunningExec, RuntimeListener
from silo.errors import Conflict, InvalidRequest, SiloError, Unsupported
from silo.host.cgroups import CgroupTree
from silo.isolation import run_files
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.disk_container import RECORD_NAME, DiskContainer, DiskRecord, SerialLine, exit_record
from silo.isolation.vm.disk_exec import DiskExec
from silo.isolation.vm.disk_files import DiskFiles
from silo.isolation.vm.disk_network import Card
from silo.isolation.vm.finding import ask_each, log_of
from silo.isolation.vm.pumps import Inlet
from silo.isolation.vm.ranges import Ranges
from silo.isolation.vm.shapes import host_limits, processors_of
from silo.isolation.vm.watching import load_exit
from silo.isolation.vm.whole.boot import WholePlan
from silo.isolation.vm.whole.command import WholeMachine
from silo.isolation.vm.whole.guest import WholeGuest
from silo.isolation.vm.whole.processes import list_processes
from silo.model.clock import now
from silo.model.container import Resources
from silo.model.exit_codes import KILLED
from silo.model.log import STDOUT
from silo.model.mount import PlannedMount
from silo.model.runtime import (
    ContainerPlan,
    ExitRecord,
    LaunchPlan,
    ProcessPlan,
    ProcessTable,
    Rootfs,
    RuntimeState,
    Sandbox,
    Started,
    Statistics,
)

log = logging.getLogger(__name__)

DEFAULT_MEMORY_BYTES = 2 << 30
LEAST_MEMORY_BYTES = 128 << 20
_SHUT_DOWN = (signals.SIGTERM, signals.SIGINT, signals.SIGQUIT, signals.SIGPWR)
_IGNORED = (signals.SIGWINCH, signals.SIGCHLD, signals.SIGCONT, signals.SIGURG, signals.SIGPIPE)
_BUTTON_AFTER_S = 30.0


class DiskContainers:
    """`directory`, `cgroups` and `ranges` are shared with all other machines; `accelerator` says what works here."""

    def __init__(
        self,
        directory: Path,
        cgroups: CgroupTree,
        ranges: Ranges,
        accelerator: Callable[[], Awaitable[Accelerator]],
        listener: RuntimeListener,
    ) -> None:
        self._directory = directory
        self._cgroups = cgroups
        self._ranges = ranges
        self._accelerator = accelerator
        self._listener = listener
        self._containers: dict[str, DiskContainer] = {}

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._containers

    def known(self) -> frozenset[str]:
        return frozenset(self._containers)

    def close(self) -> None:
        """Machines run on."""
        for container in self._containers.values():
            container.releasing = True
            self._let_go(container)
            container.guest.close()

    # --- what outlives the daemon

    async def recover(self, ids: Sequence[str]) -> Mapping[str, RuntimeState]:
        """Those of them that boot a disk and were at least prepared."""
        states = {}

        async def ask(container_id: str) -> None:
            record = run_files.load(self._directory / container_id / RECORD_NAME, DiskRecord)
            if record is not None:
                states[container_id] = await self._find_again(record)

        await ask_each(ids, ask)
        return states

    async def _find_again(self, record: DiskRecord) -> RuntimeState:
        plan = record.plan
        ended = load_exit(plan.directory) if record.started else None
        if ended is not None:
            return RuntimeState(id=plan.id, exit=ended)
        output = log_of(plan)
        try:
            output.resume()
            guest = await WholeGuest.adopt(self._directory / plan.id, on_output=self._hearing(plan.id))
            if guest is not None and record.started:
                await self._take_over(record, guest, output)
                return RuntimeState(id=plan.id, pid=record.pid, paused=record.paused)
            if guest is not None:
                await guest.end()
            reason = "the virtual machine ended while no daemon was there to see how"
        except (SiloError, OSError) as error:
            log.error("container %s: its virtual machine cannot be taken over: %s", plan.id[:12], error)
            reason = f"the virtual machine was lost: {error}"
        output.close()
        if not record.started:
            return RuntimeState(id=plan.id)
        log.error("container %s: %s", plan.id[:12], reason)
        exit = ExitRecord(exit_code=KILLED, finished_at=now(), error=reason)
        run_files.save(plan.directory / "exit.json", exit)
        return RuntimeState(id=plan.id, exit=exit)

    async def _take_over(self, record: DiskRecord, guest: WholeGuest, output: Any) -> None:
        await self._ranges.adopt(record.first_id)
        card = Card(guest, record.plan, plugged=record.plugged)
        container = DiskContainer(record, guest, output, card, announced=True)
        self._containers[container.id] = container
        self._watch(container)
        try:
            await card.update()
        except SiloError as error:
            log.error("container %s: its network: %s", container.id[:12], error)

    # --- life of a container

    async def prepare(self, plan: ContainerPlan) -> Sandbox:
        """The machine is there and waits. Raises what WholeGuest.start does, InvalidRequest for limits that make no machine."""
        assert plan.disk is not None
        if plan.id in self._containers:
            raise Conflict(f"container {plan.id[:12]} is prepared already")
        accelerator = await self._accelerator()
        machine = WholeMachine(
            disk=plan.disk,
            memory_bytes=machine_memory(plan.resources),
            accelerator=accelerator,
            # a second processor makes an emulated machine slower
            processors=processors_of(plan.resources, 1 if accelerator is Accelerator.TCG else 2),
            mac=plan.mac_address,
        )
        (plan.directory / "exit.json").unlink(missing_ok=True)
        async with contextlib.AsyncExitStack() as undo:
            taken = await self._ranges.take()
            undo.callback(self._ranges.give_back, taken.first_id)
            undo.push_async_callback(asyncio.to_thread, self._clear, plan.id)
            limits = host_limits(plan.resources, machine.memory_bytes)
            store, place, entry_files = await asyncio.to_thread(self._make_places, plan, limits)
            whole = WholePlan(machine, store, place, taken.first_id, entry_files)
            guest = await WholeGuest.start(whole, held=True, on_output=self._hearing(plan.id))
            undo.push_async_callback(guest.end)
            record = DiskRecord(
                plan=plan, first_id=taken.first_id, pid=guest.process.pid, memory_bytes=machine.memory_bytes
            )
            container = DiskContainer(record, guest, log_of(plan), Card(guest, plan))
            container.remember()
            undo.pop_all()
        self._containers[plan.id] = container
        return self._sandbox(container)

    def _make_places(self, plan: ContainerPlan, limits: Resources) -> tuple[Path, Path, tuple[str, ...]]:
        store, place = plan.directory / "machine", self._directory / plan.id
        store.mkdir(mode=0o700, exist_ok=True)
        place.mkdir(mode=0o700, parents=True)
        self._cgroups.create(plan.id)
        self._cgroups.apply(plan.id, limits)
        return store, place, self._cgroups.entry_files(plan.id)

    def _clear(self, container_id: str) -> None:
        shutil.rmtree(self._directory / container_id, ignore_errors=True)
        with contextlib.suppress(SiloError):
            self._cgroups.remove(container_id)

    def _sandbox(self, container: DiskContainer) -> Sandbox:
        return Sandbox(id=container.id, netns=container.netns, user_namespace=False)

    async def start(self, container_id: str) -> Started:
        container = self._containers[container_id]
        if container.record.started:
            raise Conflict(f"container {container_id[:12]} is not prepared")
        await asyncio.to_thread(container.log.begin)
        await container.card.update()
        container.remember(started=True)
        await container.guest.unpause()
        self._watch(container)
        container.announced = True
        return Started(pid=container.record.pid)

    async def release(self, container_id: str) -> None:
        container = self._containers[container_id]
        if container.releasing:
            return
        container.releasing = True
        self._let_go(container)
        try:
            await asyncio.shield(container.guest.end())
        finally:
            await asyncio.to_thread(self._clear, container_id)
            self._ranges.give_back(container.record.first_id)
            del self._containers[container_id]

    def _let_go(self, container: DiskContainer) -> None:
        """Of everything that only this daemon has."""
        for task in tuple(container.tasks):
            task.cancel()
        for running in tuple(container.execs):
            running.abandon()
        if container.inlet is not None:
            container.inlet.close()
        container.card.close()
        container.log.close()

    # --- what happens by itself

    def _hearing(self, container_id: str) -> Callable[[bytes], None]:
        def hear(untrusted_output: bytes) -> None:
            container = self._containers.get(container_id)
            if container is not None and not container.releasing:
                container.log.append(STDOUT, untrusted_output)
                self._listener.on_output(container_id)

        return hear

    def _watch(self, container: DiskContainer) -> None:
        """From the moment that it runs."""
        if container.record.plan.open_stdin:
            container.inlet = Inlet(SerialLine(container.guest))
        self._spawn(container, self._await_end(container))

    def _spawn(self, container: DiskContainer, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"disk-{container.id[:12]}")
        container.tasks.add(task)
        task.add_done_callback(container.tasks.discard)
        return task

    async def _await_end(self, container: DiskContainer) -> None:
        end = await container.guest.wait()
        if container.releasing:
            return
        killed = await asyncio.to_thread(self._cgroups.out_of_memory_kills, container.id)
        container.exit = exit_record(end, container, out_of_memory=killed > 0)
        with contextlib.suppress(OSError):
            run_files.save(container.record.plan.directory / "exit.json", container.exit)
        for running in tuple(container.execs):
            running.abandon()
        container.execs.clear()
        if container.exit.oom_killed:
            self._listener.on_out_of_memory(container.id)
        self._listener.on_exit(container.id, container.exit)

    # --- what is done to running ones

    def _awake(self, container_id: str, what: str) -> DiskContainer:
        container = self._containers[container_id]
        container.check_awake(what)
        return container

    def _running(self, container_id: str) -> DiskContainer:
        container = self._containers[container_id]
        if not container.running:
            raise Conflict(f"container {container_id[:12]} is not running")
        return container

    async def signal(self, container_id: str, signal: int) -> None:
        """A machine can be shut down or switched off, and nothing else. Raises Unsupported for what is neither."""
        container = self._running(container_id)
        if signal == signals.SIGKILL:
            container.killed = True
            await asyncio.shield(container.guest.end())
        elif signal in _SHUT_DOWN:
            if container.shutting_down is None or container.shutting_down.done():
                container.shutting_down = self._spawn(container, self._shut_down(container))
        elif signal not in _IGNORED:
            raise Unsupported(
                f"the signal {signals.Signals(signal).name} means nothing to a machine that boots a disk",
                hint="SIGTERM shuts it down, SIGKILL switches it off",
            )

    async def _shut_down(self, container: DiskContainer) -> None:
        guest = container.guest
        with contextlib.suppress(SiloError):
            if await guest.ask_to_shut_down() and await guest.ends_within(_BUTTON_AFTER_S):
                return
            await guest.press_power_button()

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        """A serial line has no size."""

    async def pause(self, container_id: str) -> None:
        container = self._awake(container_id, "it is paused again")
        await container.guest.pause()
        container.remember(paused=True)

    async def unpause(self, container_id: str) -> None:
        container = self._running(container_id)
        await container.guest.unpause()
        container.remember(paused=False)

    async def update(self, container_id: str, resources: Resources) -> None:
        container = self._running(container_id)
        record = container.record
        if machine_memory(resources) != record.memory_bytes:
            raise InvalidRequest(
                f"the machine has {record.memory_bytes >> 20} MiB while it runs",
                hint="stop it before you change --memory",
            )
        before = host_limits(record.plan.resources, record.memory_bytes)
        after = host_limits(resources, record.memory_bytes)
        await asyncio.to_thread(self._cgroups.apply, container_id, after, before=before)
        container.remember(plan=msgspec.structs.replace(record.plan, resources=resources))

    async def statistics(self, container_id: str) -> Statistics:
        container = self._running(container_id)
        if not container.record.paused:
            container.last_statistics = await container.guest.statistics()
        return container.last_statistics

    async def processes(self, container_id: str, ps_args: str) -> ProcessTable:
        container = self._containers[container_id]
        await container.check_agent("top")
        return await list_processes(container.guest, ps_args)

    async def open_stdin(self, container_id: str) -> int:
        container = self._running(container_id)
        descriptor = container.inlet.open() if container.inlet is not None else -1
        if descriptor < 0:
            raise Conflict(f"the input of container {container_id[:12]} is closed")
        return descriptor

    async def close_stdin(self, container_id: str) -> None:
        """A serial line has no end: the next one who attaches goes on writing to it."""

    async def exec(
        self, container_id: str, program: ProcessPlan | LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> RunningExec:
        assert isinstance(program, ProcessPlan)
        container = self._containers[container_id]
        await container.check_agent("exec")
        running = await DiskExec.start(container.guest, program, stdin=stdin, stdout=stdout, stderr=stderr)
        container.execs = {each for each in container.execs if not each.is_over} | {running}
        return running

    async def save(self, container_id: str) -> None:
        """Nothing of Silo's is in its memory."""

    async def update_network(self, container_id: str) -> None:
        container = self._containers[container_id]
        if container.running:
            await container.card.update()
            container.remember()

    def root_path(self, container_id: str) -> Path | None:  # noqa: ARG002 - the port's
        return None

    def open_files(
        self,
        container_id: str,
        rootfs: Rootfs,  # noqa: ARG002 - the port's
        planned: Sequence[PlannedMount],  # noqa: ARG002 - the port's
    ) -> AbstractAsyncContextManager[RootFiles]:
        return self._open_files(self._containers[container_id])

    @contextlib.asynccontextmanager
    async def _open_files(self, container: DiskContainer) -> AsyncIterator[RootFiles]:
        await container.check_agent("cp")
        yield DiskFiles(await container.guest.files())


def machine_memory(resources: Resources) -> int:
    """Raises InvalidRequest."""
    wanted = resources.memory_bytes or DEFAULT_MEMORY_BYTES
    if wanted < LEAST_MEMORY_BYTES:
        raise InvalidRequest(
            f"--memory {wanted} is too little for a machine that boots a disk",
            hint=f"at least {LEAST_MEMORY_BYTES >> 20}m",
        )
    return wanted >> 20 << 20
