"""The hyperv level: each container in a virtual machine of its own, a clone of a template.

`VmRuntime` implements the port `silo.engine.ports.Runtime`. Its parts: `clones` makes machines, `starting` brings a container up in
one, `wiring_up` gives it its networks, `watching` waits for its end, `executing` runs further programs, `finding` finds everything
again after a restart of the daemon. What limits and confines a guest is done on the host's side; what a guest says is untrusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal as signals
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from silo.engine.ports import RootFiles, RunningExec, RuntimeListener
from silo.errors import Conflict, NotFound, SiloError, ToolMissing
from silo.host.cgroups import CgroupTree, cgroup_parent, find_layout
from silo.isolation import run_files
from silo.isolation.pipes import HostPipes
from silo.isolation.seccomp import SeccompSource
from silo.isolation.spec import build_process, build_rlimits
from silo.isolation.vm.accelerator import DEVICE as KVM_DEVICE
from silo.isolation.vm.choosing import Chooser, FindImage, VmSettings
from silo.isolation.vm.clones import Clones, Shelf
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.container import Record, VmContainer
from silo.isolation.vm.disk_containers import DiskContainers
from silo.isolation.vm.executing import VmExec
from silo.isolation.vm.finding import ask_each, find_again, find_places, log_of
from silo.isolation.vm.guest_spec import MAIN, folders_of, limits
from silo.isolation.vm.image_files import ImageFiles
from silo.isolation.vm.jail import QEMU
from silo.isolation.vm.opening import FileOpener, open_running
from silo.isolation.vm.pipe_carrier import PipeCarrier
from silo.isolation.vm.ps_table import build_process_table
from silo.isolation.vm.ranges import Ranges
from silo.isolation.vm.scratch_disks import ScratchDisks
from silo.isolation.vm.shapes import check_update, host_limits
from silo.isolation.vm.starting import Starter
from silo.isolation.vm.vm_pool import VmPool
from silo.isolation.vm.watching import Watcher
from silo.isolation.vm.windows import signal_program
from silo.isolation.vm.windows_exec import WindowsVmExec
from silo.isolation.vm.wiring_up import wire_up
from silo.isolation.windows_table import build_windows_table
from silo.model.container import Resources
from silo.model.mount import PlannedMount
from silo.model.platform import Isolation
from silo.model.runtime import (
    ContainerPlan,
    LaunchPlan,
    ProcessPlan,
    ProcessTable,
    Rootfs,
    RuntimeReport,
    RuntimeState,
    Sandbox,
    Started,
    Statistics,
)

log = logging.getLogger(__name__)

_RELEASE_PATIENCE_S = 30.0
_KILL_PATIENCE_S = 10.0
"""How long a guest may take to end a killed program before its machine is ended."""


class VmRuntime:
    """See silo.engine.ports.Runtime. `shelf`: templates that outlive this runtime."""

    isolation = Isolation.HYPERV
    keeps_files = True

    def __init__(
        self,
        *,
        run_root: Path,
        data_root: Path,
        find_image: FindImage,
        settings: VmSettings | None = None,
        shelf: Shelf | None = None,
        pipes: HostPipes | None = None,
    ) -> None:
        self._pipes = pipes or HostPipes(run_root.absolute() / "vms" / "pipes")
        self._directory = run_root.absolute() / "vms"
        self._run_root, self._data_root = run_root.absolute(), data_root
        self._find_image = find_image
        self._shelf, self._own_shelf = shelf or Shelf(), shelf is None
        self._settings = settings = settings or VmSettings()
        self._images = ImageFiles(data_root / "vm" / "images")
        self._scratches = ScratchDisks(data_root / "vm" / "scratch", settings.scratch_bytes)
        # two daemons begin at different places: their machines are different users
        self._ranges = Ranges(zlib.crc32(str(self._run_root).encode()))
        self._seccomp = SeccompSource(run_root / "vm-seccomp", use_annotation=True)
        self._starter = Starter(self._seccomp)
        self._containers: dict[str, VmContainer] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._opened = False

    # --- life of the runtime

    async def open(self, listener: RuntimeListener) -> None:
        self._watcher = Watcher(listener, lambda name: self._cgroups.out_of_memory_kills(name))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = await asyncio.to_thread(find_layout)
        self._cgroups = CgroupTree(layout, parent=f"{cgroup_parent(self._run_root)}-vm")
        self._warnings = await asyncio.to_thread(self._cgroups.open)
        self._clones = Clones(
            self._directory, self._cgroups, self._ranges, self._images, self._scratches, self._seccomp, self._shelf
        )
        self._chooser = Chooser(self._clones, self._images, self._find_image, self._settings)
        self._pool = VmPool(
            size=self._settings.pool,
            ceiling_bytes=self._settings.pool_memory_bytes,
            clones=self._clones,
            images=self._images,
            scratches=self._scratches.directory,
            seccomp=self._seccomp,
            shape_of=self._chooser.shape_in_pool,
            recipe_file=self._data_root / "vm" / "pool.json",
        )
        await asyncio.to_thread(self._images.open)
        self._opener = FileOpener(self._clones, self._images, self._chooser.plain_shape)
        self._opened = True

    async def close(self) -> None:
        if not self._opened:
            return
        for container in tuple(self._containers.values()):
            container.releasing = True
            self._let_go(container)
            container.clone.session.close()
        await self._opener.close()
        await self._pool.close()
        if self._ending:
            await asyncio.gather(*self._ending.values(), return_exceptions=True)
        await self._clones.close()
        if self._own_shelf:
            self._shelf.close()
        self._ranges.close()
        await asyncio.to_thread(self._cgroups.close)

    def report(self) -> RuntimeReport:
        choice = self._clones.choice
        templates, held = self._clones.report()
        facts = {
            "Accelerator": f"{choice.accelerator} ({choice.reason})" if choice else "not tried yet",
            "Templates": f"{templates}, {held >> 20} MiB" if templates else "none yet",
            "Pool": self._pool.report(),
        }
        warnings = () if Path(QEMU).exists() else (f"{QEMU} is missing: --isolation hyperv needs qemu-system-x86",)
        return RuntimeReport(name="qemu", facts=facts, warnings=(*warnings, *self._warnings))

    def make_disk_containers(self, listener: RuntimeListener) -> DiskContainers:
        """Machines of another kind beside this one's, in the same directory, control groups and user ids."""

        async def accelerator() -> Accelerator:
            if self._settings.acceleration != "kvm" and not KVM_DEVICE.exists():
                # no utility VM has to be built to find that out
                return Accelerator.TCG
            return await self._clones.accelerator(await self._find_image(""), self._settings.acceleration)

        return DiskContainers(self._directory, self._cgroups, self._ranges, accelerator, listener)

    async def recover(self, ids: Sequence[str], *, spared: frozenset[str] = frozenset()) -> Mapping[str, RuntimeState]:
        """`spared`: machines that are not this one's (make_disk_containers)."""
        states: dict[str, RuntimeState] = {}
        places = await asyncio.to_thread(find_places, self._directory)

        async def ask(container_id: str) -> None:
            state = await self._recover_one(container_id, places[container_id])
            if state is not None:
                states[container_id] = state

        await ask_each((container_id for container_id in ids if container_id in places), ask)
        known = spared | {container.clone.name for container in self._containers.values()}
        await asyncio.to_thread(self._clones.clear_unknown, known)
        if not known:
            await asyncio.to_thread(self._scratches.clear, self._shelf.scratches())
        await self._pool.open()
        return states

    async def _recover_one(self, container_id: str, place: Path) -> RuntimeState | None:
        found = await find_again(place, container_id, self._ranges)
        if found is None or found[0] is None:
            return found[1] if found else None
        container, state = found
        assert container is not None
        self._containers[container_id] = container
        exit = container.main.exit if container.main else None
        self._watcher.watch(container)
        if exit is None:
            if pipes := container.record.plan.pipes:
                session = container.clone.session
                container.remap = lambda: self._pipes.map_again(container_id, pipes, lambda: PipeCarrier.dial(session))
                container.remap()
            return state
        # an end that happened meanwhile is told now, with its last output in the log
        container.announced = False
        await self._until_ended(container)
        assert container.exit is not None
        return RuntimeState(id=container_id, exit=container.exit)

    async def _until_ended(self, container: VmContainer) -> None:
        while container.exit is None:
            await asyncio.wait(set(container.tasks), return_when=asyncio.FIRST_COMPLETED)

    # --- life of a container

    async def prepare(self, plan: ContainerPlan) -> Sandbox:
        if plan.id in self._containers:
            raise Conflict(f"container {plan.id[:12]} is prepared already")
        if (ending := self._ending.get(plan.id)) is not None:
            await asyncio.wait([ending])
        if not Path(QEMU).exists():
            raise ToolMissing(QEMU, "qemu-system-x86")
        await self._opener.give_way(plan.id)
        (plan.directory / "exit.json").unlink(missing_ok=True)
        clone = await self._chooser.clone(plan, self._pool)
        shape = clone.shape
        assert shape is not None
        record = Record(
            plan=plan,
            first_id=clone.range.first_id,
            pid=clone.vm.pid,
            pid_started=clone.vm.pid_started,
            memory_bytes=shape.memory_bytes,
            processors=shape.processors,
            image=clone.image.path,
            mapped=clone.image.mapped,
            begun=clone.begun is not None or plan.launch is not None,
        )
        container = self._containers[plan.id] = VmContainer(record, clone, log_of(plan))
        try:
            run_files.save(container.record_file, record)
            container.creating = asyncio.create_task(self._starter.set_up(container), name=f"set-up-{plan.id[:12]}")
            if folders_of(plan):
                # what is wrong with a folder is told now; the special files, which all have, are not served
                await container.creating
        except BaseException:
            await asyncio.shield(self.release(plan.id))
            raise
        return self._sandbox(container)

    def _sandbox(self, container: VmContainer) -> Sandbox:
        netns = container.netns if container.record.plan.network == "private" else None
        return Sandbox(id=container.id, netns=netns, user_namespace=False)

    def sandbox(self, container_id: str) -> Sandbox | None:
        container = self._containers.get(container_id)
        return self._sandbox(container) if container is not None else None

    async def start(self, container_id: str) -> Started:
        container = self._containers.get(container_id)
        if container is None or container.record.started:
            raise Conflict(f"container {container_id[:12]} is not prepared")
        await self._starter.start(container, self._map_pipes)
        run_files.save(container.record_file, container.record)
        self._watcher.watch(container)
        container.announced = True
        if container.exit is not None:
            self._watcher.announce(container)
        return Started(pid=container.record.pid)

    async def _map_pipes(self, container: VmContainer) -> None:
        session, pipes = container.clone.session, container.record.plan.pipes
        container.remap = lambda: self._pipes.map_again(container.id, pipes, lambda: PipeCarrier.dial(session))
        await self._pipes.map(container.id, pipes, lambda: PipeCarrier.dial(session))

    async def release(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None or container.releasing:
            return
        container.releasing = True
        self._let_go(container)
        try:
            await container.clone.session.end()
        finally:
            self._containers.pop(container_id, None)
        ending = asyncio.create_task(
            self._clones.clear(container.clone.name, container.record.first_id), name=f"clear-{container_id[:12]}"
        )
        self._ending[container_id] = ending
        ending.add_done_callback(lambda _: self._ending.pop(container_id, None))

    def _let_go(self, container: VmContainer) -> None:
        """Of everything that only this daemon has."""
        self._pipes.drop(container.id)
        if container.creating is not None:
            container.creating.cancel()
        for task in tuple(container.tasks):
            task.cancel()
        for running in tuple(container.execs):
            if isinstance(running, VmExec):
                running.abandon()
        if container.inlet is not None:
            container.inlet.close()
        container.log.close()

    # --- what is done to running containers

    def _running(self, container_id: str) -> VmContainer:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFound(f"container {container_id[:12]} is not known to the runtime")
        if not container.running:
            raise Conflict(f"container {container_id[:12]} is not running")
        return container

    def _awake(self, container_id: str, what: str) -> VmContainer:
        container = self._running(container_id)
        if container.record.paused:
            raise Conflict(f"container {container_id[:12]} is paused: unpause it before {what}")
        return container

    async def signal(self, container_id: str, signal: int) -> None:
        container = self._running(container_id)
        if signal == signals.SIGKILL:
            await self._kill(container)
        else:
            await self._signal(container, signal)

    async def _kill(self, container: VmContainer) -> None:
        """Whatever the guest does: one that does not answer, or does not let its program end, is ended with its machine."""
        try:
            async with asyncio.timeout(_KILL_PATIENCE_S):
                if container.record.paused:
                    await self.unpause(container.id)
                await self._signal(container, signals.SIGKILL)
        except (Conflict, NotFound):
            # the program has ended just now: that is on its way
            pass
        except (SiloError, TimeoutError) as error:
            if not container.running:
                return
            words = error.brief if isinstance(error, SiloError) else "it did not answer"
            await self._watcher.end_machine(container, f"it could not be told to kill its program: {words}")
            return
        self._watcher.expect_end(container, _KILL_PATIENCE_S)

    async def _signal(self, container: VmContainer, signal: int) -> None:
        plan, session = container.record.plan, container.clone.session
        if plan.launch is not None:
            await signal_program(session, plan, signal)
        else:
            await session.guest.signal(MAIN, signal)

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        container = self._awake(container_id, "its terminal changes its size")
        guest = container.clone.session.guest
        if container.record.plan.launch is not None:
            await guest.resize_console(MAIN, MAIN, rows, columns)
        else:
            await guest.resize(MAIN, rows, columns)

    async def pause(self, container_id: str) -> None:
        """The container is frozen in its guest, then the machine stands still."""
        container = self._awake(container_id, "it is paused again")
        await self._freeze(container, frozen=True)
        await container.clone.vm.monitor.execute("stop")
        self._remember(container, paused=True)

    async def unpause(self, container_id: str) -> None:
        container = self._running(container_id)
        await self._resume(container)
        self._remember(container, paused=False)
        await self._freeze(container, frozen=False)
        await self.update_network(container_id)

    async def _freeze(self, container: VmContainer, *, frozen: bool) -> None:
        files = {"cgroup.freeze": str(int(frozen))}
        await container.clone.session.client.request("limit", {"task": MAIN, "files": files})

    async def _resume(self, container: VmContainer) -> None:
        """Its machine runs, with a clock that is right; the container itself stays as it was."""
        await container.clone.vm.monitor.execute("cont")
        await container.clone.session.set_clock()

    def _remember(self, container: VmContainer, **changes: object) -> None:
        container.record = msgspec.structs.replace(container.record, **changes)
        run_files.save(container.record_file, container.record)

    async def update(self, container_id: str, resources: Resources) -> None:
        container = self._awake(container_id, "its limits change")
        record = container.record
        check_update(resources, record.memory_bytes, record.processors)
        before = host_limits(record.plan.resources, record.memory_bytes)
        after = host_limits(resources, record.memory_bytes)
        await asyncio.to_thread(self._cgroups.apply, container.clone.name, after, before=before)
        await container.clone.session.client.request("limit", {"task": MAIN, "files": limits(resources)})
        self._remember(container, plan=msgspec.structs.replace(record.plan, resources=resources))

    async def statistics(self, container_id: str) -> Statistics:
        container = self._running(container_id)
        if container.record.paused:
            return container.last_statistics
        container.last_statistics = await container.clone.session.guest.statistics(MAIN)
        return container.last_statistics

    async def processes(self, container_id: str, ps_args: str) -> ProcessTable:
        container = self._awake(container_id, "its processes are listed")
        if container.record.plan.launch is not None:
            return build_windows_table(await container.clone.session.guest.windows_processes(MAIN))
        found = await container.clone.session.guest.processes(MAIN)
        return build_process_table(found.processes, ps_args)

    async def open_stdin(self, container_id: str) -> int:
        container = self._running(container_id)
        descriptor = container.inlet.open() if container.inlet is not None else -1
        if descriptor < 0:
            raise Conflict(f"the input of container {container_id[:12]} is closed")
        return descriptor

    async def close_stdin(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is not None and container.inlet is not None and not container.record.plan.process.tty:
            container.inlet.finish()
            await container.inlet.settle()

    async def exec(
        self, container_id: str, program: ProcessPlan | LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> RunningExec:
        container = self._awake(container_id, "exec")
        session = container.clone.session
        if isinstance(program, LaunchPlan):
            container.sequence += 1
            name = f"exec-{container.sequence}-{session.serial}"
            launched = await session.guest.launch(name, MAIN, program, wanted=(stdin, stdout, stderr))
            there = WindowsVmExec(session.guest, launched, MAIN, terminal=program.tty)
            container.execs.add(there)
            return there
        identity = await session.identity(program.user, program.groups)
        process = build_process(program, identity)
        process["rlimits"] = build_rlimits(container.record.plan.resources.ulimits)
        container.sequence += 1
        name = f"exec-{container.sequence}-{container.clone.session.serial}"
        started = await session.guest.execute(name, MAIN, process, wanted=(stdin, stdout, stderr))
        running = VmExec(session.guest, started, terminal=program.tty)
        container.execs.add(running)
        return running

    async def save(self, container_id: str) -> None:
        container = self._running(container_id)
        if container.record.plan.launch is not None and not container.record.paused:
            await container.clone.session.guest.save(MAIN)

    async def update_network(self, container_id: str) -> None:
        """The interfaces in the sandbox, or the files hosts and resolv.conf, have changed."""
        container = self._containers.get(container_id)
        if container is None or not container.running or container.record.paused:
            return
        await wire_up(container)
        await container.clone.session.write_files(await self._starter.files(container.record.plan))

    def open_files(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AbstractAsyncContextManager[RootFiles]:
        container = self._containers.get(container_id)
        if container is not None and container.running:
            return open_running(container, self._resume)
        return self._open_stopped(container_id, rootfs, planned)

    @contextlib.asynccontextmanager
    async def _open_stopped(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AsyncIterator[RootFiles]:
        async with asyncio.timeout(_RELEASE_PATIENCE_S):
            # one that has just ended still holds its disk
            while container_id in self._containers or container_id in self._ending:
                await asyncio.sleep(0.02)
        async with self._opener.open(container_id, rootfs, planned) as files:
            yield files

    def root_path(self, container_id: str) -> Path | None:  # noqa: ARG002 - a guest's root is nowhere on the host
        return None
