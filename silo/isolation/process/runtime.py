"""The process level: containers as processes of the host's kernel, run by crun, kept by the keeper.

`ProcessRuntime` implements the port `silo.engine.ports.Runtime`. Its parts: `making` prepares containers, `spec` says what crun
shall do, the keeper spawns crun and holds the streams, `executing` runs further programs, `recovery` finds everything again.
Blocking work is done in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec

from silo.engine.ports import RootFiles, RunningExec, RuntimeListener
from silo.errors import Conflict, NotFound, SiloError, Unavailable, Unsupported
from silo.host import namespaces
from silo.host.cgroups import CgroupTree, cgroup_parent, find_layout
from silo.isolation.pipes import HostPipes
from silo.isolation.process.bundle import remove_bundle
from silo.isolation.process.dressing import Dresser
from silo.isolation.process.executing import Executor
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.live import Live
from silo.isolation.process.making import Maker
from silo.isolation.process.pool import SandboxPool
from silo.isolation.process.probe import HostFacts, probe_host
from silo.isolation.process.process_table import load_process_table
from silo.isolation.process.record import Paths, Record, save_record
from silo.isolation.process.recovery import adopt, clean_orphans, hand_over_all, take_back
from silo.isolation.process.silo import Silos
from silo.isolation.process.starting import Starter
from silo.isolation.process.warm import WarmSilos
from silo.isolation.seccomp import SeccompSource
from silo.isolation.slots import Slots
from silo.model.container import Resources
from silo.model.mount import PlannedMount
from silo.model.platform import Isolation
from silo.model.runtime import (
    ContainerPlan,
    ExitRecord,
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

_KEEPER_PATIENCE_S = 2.0

_WARM_PATIENCE_S = 120.0
# How long a Windows program that has just been started stays on one processor: long enough for it to be loaded.
_NARROW_S = 0.1


class ProcessRuntime:
    """See silo.engine.ports.Runtime. `linux_pool` and `windows_pool` are numbers of sandboxes kept ready; 0 disables."""

    isolation = Isolation.PROCESS
    keeps_files = False

    def __init__(self, *, run_root: Path, data_root: Path, linux_pool: int = 2, windows_pool: int = 1) -> None:
        self._paths = Paths(run_root.absolute())
        self._data_root = data_root
        self._linux_pool = linux_pool
        self._slots = Slots(self._paths.first_slot)
        self._lives: dict[str, Live] = {}
        self._cleaning: dict[str, asyncio.Task[None]] = {}
        self._listener: RuntimeListener | None = None
        self._keeper = KeeperClient(self._on_event, self._on_keeper_lost)
        self._silos = Silos(self._paths)
        self._pipes = HostPipes(self._paths.run_root / "pipes")
        self._warm = WarmSilos(windows_pool, self._paths, data_root, self._begin_warm, self.release)
        self._closing = False
        self._opened = False
        self._replacing: asyncio.Task[None] | None = None

    # --- life of the runtime

    async def open(self, listener: RuntimeListener) -> None:
        self._listener = listener
        for directory in (self._paths.run_root, self._paths.containers, self._paths.crun_root, self._paths.terminals):
            directory.mkdir(parents=True, exist_ok=True)
            # crun looks up mounts as a user of the container's own: it must get through, and may not list
            directory.chmod(0o700 if directory in (self._paths.crun_root, self._paths.terminals) else 0o711)
        self._pipes.open()
        layout = await asyncio.to_thread(find_layout)
        self._cgroups = CgroupTree(layout, parent=cgroup_parent(self._paths.run_root))
        warnings = await asyncio.to_thread(self._cgroups.open)
        await self._keeper.open(self._paths.keeper_socket, self._paths.keeper_log)
        self._facts = await probe_host(self._paths, self._data_root, layout, self._keeper, warnings)
        self._seccomp = SeccompSource(self._paths.run_root / "seccomp", use_annotation=self._facts.seccomp_annotation)
        # with cgroup v2 crun itself moves processes, and a user namespace is what makes a sandbox worth keeping
        pooled = self._linux_pool if self._facts.own_cgroups and self._facts.user_namespaces else 0
        self._pool = SandboxPool(pooled, self._keeper, self._cgroups, self._slots)
        self._maker = Maker(
            self._paths, self._keeper, self._cgroups, self._facts, self._slots, self._seccomp, self._pool
        )
        self._starter = Starter(self._paths, self._facts, self._seccomp)
        self._dresser = Dresser(self._paths, self._keeper, self._cgroups, self._silos)
        self._executor = Executor(self._paths, self._keeper, self._cgroups, self._facts)
        self._opened = True

    async def close(self) -> None:
        self._closing = True
        if not self._opened:  # what made opening fail is what is told
            self._keeper.close()
            return
        for live in tuple(self._lives.values()):
            if live.creating is not None and not live.creating.done():
                live.creating.cancel()
            live.close_descriptors()
            if live.widening is not None and not live.widening.done():
                live.widening.cancel()
                await self._widen_now(live)
        await self._pipes.close()
        await self._warm.close()
        await self._pool.close()
        if self._cleaning:
            await asyncio.gather(*self._cleaning.values(), return_exceptions=True)
        await asyncio.to_thread(self._cgroups.close)
        # A keeper with nothing to keep ends; it refuses while a container runs, and then outlives us.
        with contextlib.suppress(SiloError, OSError, TimeoutError):
            await asyncio.wait_for(self._keeper.request("shutdown"), _KEEPER_PATIENCE_S)
        self._keeper.close()

    def report(self) -> RuntimeReport:
        facts: HostFacts = self._facts
        options = ["name=seccomp,profile=builtin"]
        if facts.user_namespaces:
            options.append("name=userns")
        if self._cgroups.version == 2:
            options.append("name=cgroupns")
        return RuntimeReport(
            name="crun",
            version=facts.crun_version,
            cgroup_version=str(self._cgroups.version),
            cgroup_driver="cgroupfs",
            facts=facts.facts,
            warnings=facts.warnings,
            security_options=tuple(options),
        )

    async def recover(self, ids: Sequence[str]) -> Mapping[str, RuntimeState]:
        greeting = (await self._keeper.request("hello")).values
        kept: dict[str, dict[str, Any]] = greeting["containers"]
        states: dict[str, RuntimeState] = {}
        for container_id in ids:
            found = await asyncio.to_thread(adopt, self._paths, self._cgroups, container_id, kept.get(container_id))
            if found is None:
                continue
            live, states[container_id] = found
            if live is None:
                continue
            self._lives[container_id] = live
            if live.record.first_host_uid:
                self._slots.mark(live.record.first_host_uid)
            if live.exit is None:
                if live.record.plan.launch is not None:
                    await asyncio.to_thread(self._cgroups.widen, live.record.cgroup, live.record.plan.resources)
                await take_back(self._keeper, live, self._maker.log_fields(live), known=container_id in kept)
                if live.record.plan.pipes:
                    self._pipes.map_again(live.id, live.record.plan.pipes, self._silos.client(live).connect)
        for container_id in set(kept) - set(self._lives):
            await self._keeper.request("forget", container=container_id)
        await asyncio.to_thread(clean_orphans, self._paths, self._cgroups, self._names_in_use())
        self._pool.fill()
        await self._warm.open()
        return states

    def _names_in_use(self) -> frozenset[str]:
        return self._pool.names() | {name for live in self._lives.values() for name in (live.id, live.record.cgroup)}

    # --- life of a container

    async def prepare(self, plan: ContainerPlan) -> Sandbox:
        if plan.id in self._lives:
            raise Conflict(f"container {plan.id[:12]} is prepared already")
        if (cleaning := self._cleaning.get(plan.id)) is not None:
            await asyncio.wait([cleaning])
        warm = self._warm.take(plan)
        live = warm or Live(Record(plan=plan, cgroup=plan.id))
        if warm is not None:
            del self._lives[warm.id]
        self._lives[plan.id] = live
        try:
            if warm is None:
                await self._maker.make(live, self._lives)
            else:
                await self._dresser.rename(live, plan, self._maker.log_fields_of(plan, live.record.cgroup))
                live.creating = asyncio.create_task(self._dresser.dress(live), name=f"dress-{plan.id[:12]}")
        except BaseException:
            await asyncio.shield(self.release(plan.id))
            raise
        return self._sandbox(live)

    async def _begin_warm(self, plan: ContainerPlan) -> Live:
        """A silo for the pool: everything of a start but the main program."""
        live = Live(Record(plan=plan, cgroup=plan.id))
        self._lives[plan.id] = live
        await self._maker.make(live, self._lives)
        await self._let_run(live)
        await self._silos.client(live).ping(_WARM_PATIENCE_S)
        await asyncio.to_thread(self._cgroups.widen, live.record.cgroup, plan.resources)
        live.warm = True
        return live

    async def _let_run(self, live: Live) -> None:
        assert live.creating is not None
        pid = int((await live.creating)["pid"])
        live.record = msgspec.structs.replace(
            live.record, pid=pid, pid_started=namespaces.start_time(pid), started=True
        )
        if not live.warm:
            await self._starter.start(live)

    def _sandbox(self, live: Live) -> Sandbox:
        private = live.record.plan.network == "private"
        netns = Path(f"/proc/{os.getpid()}/fd/{live.network_namespace}") if live.network_namespace >= 0 else None
        return Sandbox(
            id=live.id,
            netns=netns if private else None,
            user_namespace=live.record.first_host_uid > 0,
            first_host_uid=live.record.first_host_uid,
        )

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The sandbox of a prepared or running container, also after a restart of the daemon (for connecting networks)."""
        live = self._lives.get(container_id)
        if live is None:
            return None
        if live.network_namespace < 0 and live.record.pid and live.record.plan.network == "private":
            with contextlib.suppress(OSError):
                live.network_namespace = os.open(f"/proc/{live.record.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return self._sandbox(live)

    async def start(self, container_id: str) -> Started:
        live = self._lives.get(container_id)
        if live is None or live.creating is None or live.record.started:
            raise Conflict(f"container {container_id[:12]} is not prepared")
        await self._let_run(live)
        if live.record.plan.launch is not None:
            await asyncio.to_thread(save_record, self._paths, live.record)
            try:
                if live.record.plan.pipes:
                    await self._silos.until_end(
                        live, self._pipes.map(live.id, live.record.plan.pipes, self._silos.client(live).connect)
                    )
                await self._silos.start_main(live)
            finally:
                live.widening = asyncio.create_task(self._widen(live), name=f"widen-{container_id[:12]}")
            if not live.warm:
                self._warm.learn(live.record.plan)
        live.announced = True
        if live.exit is not None:
            self._announce(live)
        return Started(pid=live.record.pid)

    async def _widen(self, live: Live) -> None:
        """The end of a start on one processor."""
        await asyncio.sleep(_NARROW_S)
        await self._widen_now(live)

    async def _widen_now(self, live: Live) -> None:
        if live.running:
            try:
                await asyncio.to_thread(self._cgroups.widen, live.record.cgroup, live.record.plan.resources)
            except SiloError as error:
                log.error("container %s: %s", live.id[:12], error)

    async def release(self, container_id: str) -> None:
        live = self._lives.get(container_id)
        if live is None or live.releasing:
            return
        live.releasing = True
        if live.widening is not None:
            live.widening.cancel()
        self._pipes.drop(container_id)
        try:
            if live.creating is not None and not live.creating.done():
                with contextlib.suppress(SiloError):
                    await live.creating
            if live.parked:
                with contextlib.suppress(SiloError):
                    await self._keeper.request("discard", key=live.parked)
            if live.exit is None:
                await asyncio.to_thread(self._kill_all, live)
            with contextlib.suppress(SiloError):
                await self._keeper.request("forget", container=container_id)
            live.close_descriptors()
            await asyncio.to_thread(remove_bundle, self._paths, container_id)
        finally:
            self._lives.pop(container_id, None)
        cleaning = asyncio.create_task(self._finish_release(live), name=f"release-{container_id[:12]}")
        self._cleaning[container_id] = cleaning

    def _kill_all(self, live: Live) -> None:
        self._cgroups.kill(live.record.cgroup)
        if live.record.pid:
            namespaces.kill_process(live.record.pid, signals.SIGKILL, started=live.record.pid_started)

    async def _finish_release(self, live: Live) -> None:
        """Slow and invisible: the kernel takes its time to let cgroups go."""
        try:
            await asyncio.to_thread(self._cgroups.remove, live.record.cgroup)
        except SiloError as error:
            # something of it may still run: nobody else gets its user ids
            log.error("container %s: %s", live.id[:12], error)
        else:
            if live.record.first_host_uid:
                self._slots.free(live.record.first_host_uid)
        finally:
            self._cleaning.pop(live.id, None)

    # --- events of the keeper

    def _on_event(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "output" and self._listener is not None:
            self._listener.on_output(event["container"])
        elif kind == "exit":
            live = self._lives.get(event["container"])
            if live is not None and live.exit is None:
                live.exit = ExitRecord(
                    exit_code=event["exit_code"], finished_at=event["finished_at"], oom_killed=event["oom_killed"]
                )
                live.ended.set()
                self._executor.container_ended(live.id)
                self._silos.container_ended(live.id)
                self._pipes.drop(live.id)
                if live.announced:
                    self._announce(live)
        elif kind == "exec_exit":
            self._executor.ended(event["exec"], event["code"])

    def _announce(self, live: Live) -> None:
        assert live.exit is not None and self._listener is not None
        if live.exit.oom_killed:
            self._listener.on_out_of_memory(live.id)
        self._listener.on_exit(live.id, live.exit)

    def _on_keeper_lost(self) -> None:
        """Someone has killed it. Its containers live on: another one takes over their streams, of which we have copies."""
        if not self._closing:
            log.error("the keeper has ended unexpectedly: starting another one")
            self._pool.abandon()
            self._warm.abandon()
            self._replacing = asyncio.create_task(self._replace_keeper(), name="replace-keeper")

    async def _replace_keeper(self) -> None:
        await self._keeper.open(self._paths.keeper_socket, self._paths.keeper_log)
        running = [(live, self._maker.log_fields(live)) for live in self._lives.values() if live.running]
        await hand_over_all(self._keeper, running)
        self._pool.fill()

    # --- what is done to running containers

    def _running(self, container_id: str) -> Live:
        live = self._lives.get(container_id)
        if live is None:
            raise NotFound(f"container {container_id[:12]} is not known to the runtime")
        if not live.running:
            raise Conflict(f"container {container_id[:12]} is not running")
        return live

    async def signal(self, container_id: str, signal: int) -> None:
        live = self._running(container_id)
        if live.record.plan.launch is not None:
            await self._silos.signal(live, signal)
            return
        if not namespaces.kill_process(live.record.pid, signal, started=live.record.pid_started):
            raise Conflict(f"container {container_id[:12]} is not running")

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        live = self._running(container_id)
        await self._keeper.request("resize", container=live.id, rows=rows, columns=columns)
        if live.record.plan.launch is not None:
            await self._silos.resize(live, rows, columns)

    async def pause(self, container_id: str) -> None:
        live = self._running(container_id)
        await asyncio.to_thread(self._cgroups.freeze, live.record.cgroup)

    async def unpause(self, container_id: str) -> None:
        live = self._running(container_id)
        await asyncio.to_thread(self._cgroups.thaw, live.record.cgroup)

    async def update(self, container_id: str, resources: Resources) -> None:
        live = self._running(container_id)
        before = live.record.plan.resources
        await asyncio.to_thread(self._cgroups.apply, live.record.cgroup, resources, before=before)
        plan = msgspec.structs.replace(live.record.plan, resources=resources)
        live.record = msgspec.structs.replace(live.record, plan=plan)
        await asyncio.to_thread(save_record, self._paths, live.record)

    async def statistics(self, container_id: str) -> Statistics:
        live = self._running(container_id)
        return await asyncio.to_thread(self._cgroups.statistics, live.record.cgroup)

    async def processes(self, container_id: str, ps_args: str) -> ProcessTable:
        live = self._running(container_id)
        if live.record.plan.launch is not None:
            return await self._silos.processes(live)
        pids = self._cgroups.pids(live.record.cgroup)
        first = live.record.first_host_uid
        return await asyncio.to_thread(load_process_table, pids, ps_args, first_host_uid=first)

    async def open_stdin(self, container_id: str) -> int:
        live = self._running(container_id)
        descriptor = live.streams.get("terminal", live.streams.get("input", -1))
        if descriptor < 0 or not live.record.plan.open_stdin:
            raise Conflict(f"the input of container {container_id[:12]} is closed")
        return os.dup(descriptor)

    async def close_stdin(self, container_id: str) -> None:
        live = self._lives.get(container_id)
        if live is not None and live.running and "input" in live.streams:
            os.close(live.streams.pop("input"))
            with contextlib.suppress(Unavailable):
                await self._keeper.request("close_input", container=live.id)

    async def exec(
        self, container_id: str, program: ProcessPlan | LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> RunningExec:
        live = self._running(container_id)
        if self._cgroups.is_frozen(live.record.cgroup):
            raise Conflict(f"container {container_id[:12]} is paused: unpause it before exec")
        if isinstance(program, LaunchPlan):
            return await self._silos.exec(live, program, stdin=stdin, stdout=stdout, stderr=stderr)
        return await self._executor.run(live, program, stdin=stdin, stdout=stdout, stderr=stderr)

    async def save(self, container_id: str) -> None:
        live = self._running(container_id)
        if live.record.plan.launch is not None and not self._cgroups.is_frozen(live.record.cgroup):
            await self._silos.client(live).save()

    async def update_network(self, container_id: str) -> None:
        """Programs see the namespace and the files themselves."""

    def open_files(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AbstractAsyncContextManager[RootFiles]:
        del container_id, rootfs, planned
        raise Unsupported("the files of this isolation level's containers lie in their scratch")

    def root_path(self, container_id: str) -> Path | None:
        live = self._lives.get(container_id)
        if live is None:
            return None
        if live.root >= 0:
            return Path(f"/proc/{os.getpid()}/fd/{live.root}")
        # found alive by a daemon that came again
        return Path(f"/proc/{live.record.pid}/root") if live.running else self._paths.root(container_id)
