"""The hyperv level as a subject: a VmRuntime driven in this process, as the daemon does, one container at a time or many at once.

    with Level(scratch / "pooled", image, pool=1) as level:
        times = level.run(level.run_once(workload))      # {"first output": ms, "exit": ms, "gone": ms}
        level.run(level.rest())                          # the pool is full again and has rested

A container is what `run --rm` makes of it: special files as the engine writes them, a volatile root, nothing kept. What the
engine and its client add to that is not in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import uvloop

from bench.silo_subject import pss_kib
from silo.errors import SiloError
from silo.isolation.vm.choosing import VmSettings
from silo.isolation.vm.command import Role
from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.machine import VirtualMachine, start_machine
from silo.isolation.vm.runtime import VmRuntime
from silo.isolation.vm.template import Template
from silo.model.ids import new_id
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.log import parse_records
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ExitRecord, LaunchPlan, ProcessPlan, Rootfs, ScratchOwner
from silo.model.vm_image import VmImage
from silo.windows.base.environment import ADMINISTRATOR_UID, DRIVE_C, PREFIX, UNIX_ENVIRONMENT
from silo.windows.personality import START

PATIENCE_S = 120.0
REST_S = 0.5
SPECIAL_FILES = {"hosts": "127.0.0.1\tlocalhost\n", "hostname": "bench\n", "resolv.conf": "nameserver 127.0.0.11\n"}
_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What runs: a Linux program's words, or a Windows command line; `says` is what its output holds."""

    layers: tuple[Path, ...]
    words: tuple[str, ...] = ()
    line: str = ""
    says: str = ""
    parked: bool = False

    @property
    def personality(self) -> PersonalityName:
        return PersonalityName.WINDOWS if self.line else PersonalityName.LINUX


class _Listener:
    def __init__(self) -> None:
        self.outputs: dict[str, float] = {}
        self.exits: dict[str, tuple[float, ExitRecord]] = {}
        self._changed = asyncio.Event()

    def on_output(self, container_id: str) -> None:
        self.outputs.setdefault(container_id, time.perf_counter())
        self._changed.set()

    def on_exit(self, container_id: str, record: ExitRecord) -> None:
        self.exits[container_id] = (time.perf_counter(), record)
        self._changed.set()

    def on_out_of_memory(self, container_id: str) -> None:
        pass

    async def until(self, container_id: str, *, ended: bool) -> None:
        """It has written something (or ended), or it has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while container_id not in self.exits and (ended or container_id not in self.outputs):
                self._changed.clear()
                await self._changed.wait()


class Level:
    """`name` is part of its directories; the mount namespace is this process's, so bench/run gives it one of its own."""

    def __init__(self, directory: Path, image: VmImage, *, pool: int = 0, scratch_bytes: int = 20 << 30) -> None:
        async def find(_: str) -> VmImage:
            return image

        self.data_root = directory / "data"
        # the last letters decide which user ids a runtime takes
        self._run_root = directory / f"run-{directory.name}"
        for root in (self.data_root, self._run_root):
            root.mkdir(mode=0o711, parents=True)
        self._pool = pool
        self._said: dict[str, str] = {}
        settings = VmSettings(pool=pool, scratch_bytes=scratch_bytes, pool_memory_bytes=4 << 30)
        self.runtime = VmRuntime(run_root=self._run_root, data_root=self.data_root, find_image=find, settings=settings)
        self._loop = uvloop.new_event_loop()

    def __enter__(self) -> Level:
        self.run(self._open())
        return self

    async def _open(self) -> None:
        self._listener = _Listener()
        await self.runtime.open(self._listener)
        await self.runtime.recover([])

    def __exit__(self, *_exc: object) -> None:
        self.run(self.runtime.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The loop turns only while this does: nothing of one level's happens while another one is measured."""
        return self._loop.run_until_complete(work)

    # --- containers

    def plan(self, workload: Workload) -> ContainerPlan:
        container_id = new_id()
        directory = self.data_root / "containers" / container_id
        directory.mkdir(parents=True)
        for name, text in SPECIAL_FILES.items():
            (directory / name).write_text(text)
        mounts = (
            PlannedMount(target=f"/etc/{name}", source=directory / name, kind=MountKind.BIND) for name in SPECIAL_FILES
        )
        process, launch, owner = _program(workload)
        return ContainerPlan(
            id=container_id,
            personality=workload.personality,
            image_id="sha256:" + "0" * 64,
            rootfs=Rootfs(layers=workload.layers, scratch=directory, volatile=True),
            scratch_owner=owner,
            process=process,
            launch=launch,
            directory=directory,
            hostname=container_id[:12],
            mounts=tuple(mounts),
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            auto_remove=True,
            parked=workload.parked,
        )

    async def run_once(self, workload: Workload) -> dict[str, float]:
        """`run --rm`: milliseconds from the order to the first output and to the exit, and from the exit until nothing is left."""
        plan = self.plan(workload)
        began = time.perf_counter()
        try:
            await self.runtime.prepare(plan)
            await self.runtime.start(plan.id)
            await self._listener.until(plan.id, ended=True)
        finally:
            await self._remove(plan)
        gone = time.perf_counter()
        ended, record = self._listener.exits.pop(plan.id)
        spoke = self._listener.outputs.pop(plan.id, ended)
        if record.exit_code or workload.says not in self._said.pop(plan.id, ""):
            raise RuntimeError(f"{workload} ended with {record}")
        return {
            "first output": (spoke - began) * 1000,
            "exit": (ended - began) * 1000,
            "exit to nothing left": (gone - ended) * 1000,
        }

    async def begin(self, workload: Workload) -> ContainerPlan:
        """One that goes on when it has said what it says."""
        plan = self.plan(workload)
        try:
            await self.runtime.prepare(plan)
            await self.runtime.start(plan.id)
            await self._listener.until(plan.id, ended=False)
        except BaseException:
            await self._remove(plan)
            raise
        return plan

    @contextlib.asynccontextmanager
    async def begun(self, workload: Workload) -> AsyncIterator[ContainerPlan]:
        plan = await self.begin(workload)
        try:
            yield plan
        finally:
            await self._remove(plan)

    async def _remove(self, plan: ContainerPlan) -> None:
        await self.runtime.release(plan.id)
        # what `release` leaves to be done afterwards belongs to the end as well
        if (ending := self.runtime._ending.get(plan.id)) is not None:
            await asyncio.wait([ending])
        self._said[plan.id] = _output(plan.directory)
        shutil.rmtree(plan.directory, ignore_errors=True)

    async def remove_all(self, plans: list[ContainerPlan]) -> None:
        await asyncio.gather(*(self._remove(plan) for plan in plans))

    def container(self, plan: ContainerPlan) -> VmContainer:
        return self.runtime._containers[plan.id]

    # --- the pool

    async def rest(self) -> None:
        """Until the pool is full and its making has calmed down."""
        await self.settle()
        await asyncio.sleep(REST_S)

    async def settle(self) -> None:
        """Until the pool is full."""
        pool = self.runtime._pool
        async with asyncio.timeout(PATIENCE_S):
            while self._pool and (pool._missing() is not None or (pool._filling and not pool._filling.done())):
                await asyncio.sleep(0.05)

    def pooled_pids(self) -> list[int]:
        return [clone.vm.pid for _, clone in self.runtime._pool._ready]

    # --- what there is

    @property
    def accelerator(self) -> str:
        return str(self.runtime.report().facts["Accelerator"])

    def left(self) -> list[str]:
        """What is there of VMs but those in the pool: directories, cgroups, disks."""
        pooled = [clone for _, clone in self.runtime._pool._ready]
        names = {clone.name for clone in pooled}
        found = [path.name for path in _entries(self._run_root / "vms") if path.name not in names]
        found += [f"cgroup {name}" for name in self.runtime._cgroups.existing() if name not in names]
        disks = {clone.scratch for clone in pooled}
        disks |= {kept.scratch for kept in self.runtime._clones._templates.values() if kept.scratch}
        scratches = _entries(self.data_root / "vm" / "scratch")
        found += [path.name for path in scratches if not path.name.startswith("pristine-") and path not in disks]
        return found + [path.name for path in _entries(self.data_root / "containers")]


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _program(workload: Workload) -> tuple[ProcessPlan, LaunchPlan | None, ScratchOwner | None]:
    if not workload.line:
        return ProcessPlan(args=workload.words, env=("PATH=/bin",), capabilities=_CAPABILITIES), None, None
    uid = ADMINISTRATOR_UID
    env = tuple(f"{name}={value}" for name, value in UNIX_ENVIRONMENT.items())
    process = ProcessPlan(args=(START,), env=env, cwd=DRIVE_C, user=f"{uid}:{uid}")
    return (
        process,
        LaunchPlan(command_line=workload.line, directory="C:\\"),
        ScratchOwner(path=PREFIX, uid=uid, gid=uid),
    )


def _output(directory: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        data = (directory / "log").read_bytes()
        return b"".join(payload for _, _, payload, _ in parse_records(data)).decode(errors="replace")
    return ""


@contextlib.contextmanager
def cold_boots() -> Iterator[None]:
    """Inside, what would be a clone is the same machine booted, and a silo is begun in it: all else is the same."""
    with (
        patch("silo.isolation.vm.clones.start_clone", _boot),
        patch("silo.isolation.vm.choosing.find_ahead", _none),
    ):
        yield


def _none(_: ContainerPlan) -> None:
    return None


async def _boot(template: Template, directory: Path, *, files: dict[str, Path], **fields: Any) -> VirtualMachine:
    vm = await start_machine(directory, template.machine, Role.COLD, files={**template.files, **files}, **fields)
    try:
        await vm.monitor.execute("cont")
    except SiloError:
        await vm.end()
        raise
    return vm


def summed_pss_mib(level: Level, plans: list[ContainerPlan]) -> float:
    """QEMU alone; what clones share is counted once, in parts."""
    return sum(pss_kib(level.container(plan).record.pid) for plan in plans) / 1024


def processor_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
