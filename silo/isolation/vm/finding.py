"""A daemon that comes again: which VMs run, how the others ended, and the streams where they were.

QEMU needs no daemon. Its monitor and its agent's port are listening sockets in the VM's directory; the agent has kept all output
that is not in the log, and the exit code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from silo.errors import SiloError, Unavailable
from silo.isolation import run_files
from silo.isolation.vm.answers import Greeting, TaskState
from silo.isolation.vm.clones import Clone
from silo.isolation.vm.container import UNKEPT_LOG_BYTES, Record, VmContainer
from silo.isolation.vm.guest_log import GuestLog
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.image_files import ImageFile
from silo.isolation.vm.machine import adopt_machine
from silo.isolation.vm.pumps import Inlet
from silo.isolation.vm.ranges import Ranges
from silo.isolation.vm.session import GuestSession
from silo.isolation.vm.shapes import host_limits
from silo.isolation.vm.watching import load_exit
from silo.model.runtime import ContainerPlan, RuntimeState
from silo.model.vm_image import SCRATCH_DISK

log = logging.getLogger(__name__)

_ANSWER_LIMIT_S = 30.0
_LOOK_AGAIN_S = 0.05
_ASKED_AT_ONCE = 8


async def ask_each(ids: Iterable[str], ask: Callable[[str], Awaitable[None]]) -> None:
    """Several at the same time: a daemon that comes again waits for one that is silent, not for the sum of all silences."""
    free = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def ask_one(container_id: str) -> None:
        async with free:
            await ask(container_id)

    async with asyncio.TaskGroup() as group:
        for container_id in ids:
            group.create_task(ask_one(container_id), name=f"find-{container_id[:12]}")


def log_of(plan: ContainerPlan) -> GuestLog:
    limit = plan.log_max_bytes if plan.keep_log else plan.log_max_bytes or UNKEPT_LOG_BYTES
    return GuestLog(plan.directory, limit)


def find_places(directory: Path) -> dict[str, Path]:
    """Container id → directory of its VM. One whose record is missing or torn is nobody's. Blocks."""
    places = {}
    for file in directory.glob("*/record.json"):
        record = run_files.load(file, Record)
        if record is not None:
            places[record.plan.id] = file.parent
    return places


async def find_again(place: Path, container_id: str, ranges: Ranges) -> tuple[VmContainer | None, RuntimeState] | None:
    """None: nothing of it can be told. A container that runs comes with its state."""
    record = run_files.load(place / "record.json", Record)
    if record is None:
        return None
    ended = load_exit(record.plan.directory)
    if ended is not None and record.started:
        return None, RuntimeState(id=container_id, exit=ended)
    try:
        vm = await adopt_machine(place, record.pid, record.pid_started)
    except SiloError:
        return None, RuntimeState(id=container_id)
    session = GuestSession(vm)
    try:
        container = await _take_over(session, record, place, ranges)
    except (SiloError, OSError) as error:
        log.error("container %s: its virtual machine cannot be taken over: %s", container_id[:12], error)
        await session.end()
        return None, RuntimeState(id=container_id)
    state = RuntimeState(id=container_id, pid=record.pid, paused=record.paused)
    return container, state


async def _take_over(session: GuestSession, record: Record, place: Path, ranges: Ranges) -> VmContainer:
    if record.paused:
        # a machine that stands still answers nothing: it is asked in the first moment that it runs again
        await session.vm.monitor.execute("cont")
    task = await _greet(session)
    if record.paused:
        await session.vm.monitor.execute("stop")
    if record.begun and not record.guest_pid:
        raise Unavailable("the daemon ended before its program was started")
    output = log_of(record.plan)
    output.resume()
    taken = await ranges.adopt(record.first_id)
    clone = Clone(
        name=place.name,
        directory=place,
        shape=None,
        session=session,
        range=taken,
        image=ImageFile(record.image, record.mapped),
        scratch=record.plan.directory / SCRATCH_DISK,
        limits=host_limits(record.plan.resources, record.memory_bytes),
        rooted=True,
    )
    container = VmContainer(record, clone, output)
    container.main = session.guest.adopt(task, output.offsets)
    container.record = msgspec.structs.replace(record, guest_pid=task.pid)
    if container.main.stdin is not None:
        container.inlet = Inlet(container.main.stdin)
    container.announced = True
    return container


async def _greet(session: GuestSession) -> TaskState:
    """The container's task, once it is known what becomes of it: the daemon may have died while it was being started.

    Raises Unavailable, ProtocolError, GuestError.
    """
    try:
        async with asyncio.timeout(_ANSWER_LIMIT_S):
            while True:
                task = _main_task(await session.connect(limit_s=_ANSWER_LIMIT_S))
                if task.state != "starting":
                    return task
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        raise Unavailable(f"the container was being started for {_ANSWER_LIMIT_S:.0f} s") from None


def _main_task(greeting: Greeting) -> TaskState:
    for task in greeting.tasks:
        if task.task == MAIN:
            return task
    raise Unavailable("the guest knows no program of the container")
