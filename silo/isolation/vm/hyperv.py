"""The level hyperv as the engine knows it: containers in utility VMs, and containers that boot a disk of the user's.

Which kind a container is follows from its plan; from then on it is known by its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from silo.engine.ports import RootFiles, RunningExec, RuntimeListener
from silo.isolation.vm.disk_containers import DiskContainers
from silo.isolation.vm.runtime import VmRuntime
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


class HypervRuntime:
    """See silo.engine.ports.Runtime."""

    isolation = Isolation.HYPERV
    keeps_files = True

    def __init__(self, machines: VmRuntime) -> None:
        self._machines = machines
        self._disks: DiskContainers | None = None

    def _of(self, container_id: str) -> VmRuntime | DiskContainers:
        return self._disks if self._disks is not None and container_id in self._disks else self._machines

    # --- life of the runtime

    async def open(self, listener: RuntimeListener) -> None:
        await self._machines.open(listener)
        self._disks = self._machines.make_disk_containers(listener)

    async def close(self) -> None:
        if self._disks is not None:
            self._disks.close()
        await self._machines.close()

    def report(self) -> RuntimeReport:
        return self._machines.report()

    async def recover(self, ids: Sequence[str]) -> Mapping[str, RuntimeState]:
        assert self._disks is not None
        states = await self._disks.recover(ids)
        others = [container_id for container_id in ids if container_id not in states]
        return {**states, **await self._machines.recover(others, spared=self._disks.known())}

    # --- life of a container

    async def prepare(self, plan: ContainerPlan) -> Sandbox:
        if plan.disk is None:
            return await self._machines.prepare(plan)
        assert self._disks is not None
        return await self._disks.prepare(plan)

    async def start(self, container_id: str) -> Started:
        return await self._of(container_id).start(container_id)

    async def release(self, container_id: str) -> None:
        await self._of(container_id).release(container_id)

    async def signal(self, container_id: str, signal: int) -> None:
        await self._of(container_id).signal(container_id, signal)

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        await self._of(container_id).resize(container_id, rows, columns)

    async def pause(self, container_id: str) -> None:
        await self._of(container_id).pause(container_id)

    async def unpause(self, container_id: str) -> None:
        await self._of(container_id).unpause(container_id)

    async def update(self, container_id: str, resources: Resources) -> None:
        await self._of(container_id).update(container_id, resources)

    async def statistics(self, container_id: str) -> Statistics:
        return await self._of(container_id).statistics(container_id)

    async def processes(self, container_id: str, ps_args: str) -> ProcessTable:
        return await self._of(container_id).processes(container_id, ps_args)

    async def open_stdin(self, container_id: str) -> int:
        return await self._of(container_id).open_stdin(container_id)

    async def close_stdin(self, container_id: str) -> None:
        await self._of(container_id).close_stdin(container_id)

    async def exec(
        self, container_id: str, program: ProcessPlan | LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> RunningExec:
        return await self._of(container_id).exec(container_id, program, stdin=stdin, stdout=stdout, stderr=stderr)

    async def save(self, container_id: str) -> None:
        await self._of(container_id).save(container_id)

    async def update_network(self, container_id: str) -> None:
        await self._of(container_id).update_network(container_id)

    def root_path(self, container_id: str) -> Path | None:
        return self._of(container_id).root_path(container_id)

    def open_files(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AbstractAsyncContextManager[RootFiles]:
        return self._of(container_id).open_files(container_id, rootfs, planned)
