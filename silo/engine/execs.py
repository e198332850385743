"""`docker exec`: further programs in a running container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from silo.engine.attachments import ExecAttachment
from silo.engine.disks import plan_program
from silo.engine.events import EventBus
from silo.engine.parts import Parts
from silo.engine.planning import hostname_of
from silo.engine.ports import ExecRequest, RunningExec
from silo.engine.roster import Live
from silo.engine.states import ALIVE
from silo.errors import Conflict, NotFound, ProcessStartFailed, exit_status
from silo.model.container import Status
from silo.model.ids import new_id
from silo.model.runtime import LaunchPlan, ProcessPlan

# An ended exec can be inspected for this long (docker's client asks right after the end).
KEEP_ENDED_S = 300.0


class ExecInfo(msgspec.Struct, kw_only=True):
    """What `inspect` tells of one exec. `exit_code` None while it has not ended."""

    id: str
    container_id: str
    request: ExecRequest
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0


class Execs:
    """Execs live as long as the daemon and their container."""

    def __init__(self, parts: Parts, resolve: Callable[[str], Live], events: EventBus) -> None:
        self._parts = parts
        self._resolve = resolve
        self._events = events
        self._infos: dict[str, ExecInfo] = {}
        self._running: dict[str, RunningExec] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    def create(self, container_reference: str, request: ExecRequest) -> str:
        live = self._running_container(container_reference)
        info = ExecInfo(id=new_id(), container_id=live.id, request=request)
        self._infos[info.id] = info
        self._publish(live, f"exec_create: {' '.join(request.args)}", info)
        return info.id

    def get(self, exec_id: str) -> ExecInfo:
        if exec_id not in self._infos:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._infos[exec_id]

    def of_container(self, container_id: str) -> tuple[str, ...]:
        """Ids of the execs that run in a container."""
        return tuple(info.id for info in self._infos.values() if info.container_id == container_id and info.running)

    def check_startable(self, exec_id: str) -> Live:
        """Raises NotFound, and Conflict for one that has been started or whose container does not run."""
        info = self.get(exec_id)
        if info.started:
            raise Conflict(f"exec {exec_id} has been started already")
        return self._running_container(info.container_id)

    async def start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
    ) -> ExecAttachment | None:
        info = self.get(exec_id)
        live = self.check_startable(exec_id)
        info.started = True
        request = msgspec.structs.replace(info.request, tty=tty, console_size=console_size or info.request.console_size)
        beginning = asyncio.create_task(self._begin(live, info, request, detach=detach))
        try:
            # a client that goes away meanwhile must leave no program behind that nobody watches
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_hang_up)
            raise

    async def _begin(self, live: Live, info: ExecInfo, request: ExecRequest, *, detach: bool) -> ExecAttachment | None:
        exec_id = info.id
        try:
            running = await self._launch(live, request, detach=detach)
        except BaseException as error:
            info.exit_code = exit_status(error) if isinstance(error, ProcessStartFailed) else 126
            asyncio.get_running_loop().call_later(KEEP_ENDED_S, self._infos.pop, exec_id, None)
            raise
        info.running, info.pid = True, running.pid
        self._running[exec_id] = running
        self._publish(live, f"exec_start: {' '.join(request.args)}", info)
        attachment = None if detach else ExecAttachment(running)
        task = asyncio.create_task(self._watch(live, info, running))
        self._watchers[exec_id] = task
        task.add_done_callback(lambda _task: self._watchers.pop(exec_id, None))
        return attachment

    async def settled(self, exec_id: str, timeout_s: float) -> None:
        """Wait until the exit code is known, but not for ever: a program may go on without its output."""
        if (watcher := self._watchers.get(exec_id)) is not None:
            await asyncio.wait({watcher}, timeout=timeout_s)

    async def _launch(self, live: Live, request: ExecRequest, *, detach: bool) -> RunningExec:
        record = live.record
        if record.config.disk is not None:
            program: ProcessPlan | LaunchPlan = plan_program(request)
        else:
            image = self._parts.image_of(record)
            personality = self._parts.personality(record.personality)
            program = personality.plan_exec(record.config, image, request, hostname=hostname_of(record))
        return await self._parts.runtime(record.isolation).exec(
            record.id,
            program,
            stdin=request.attach_stdin and not detach,
            stdout=request.attach_stdout and not detach,
            stderr=request.attach_stderr and not detach,
        )

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        self.get(exec_id)
        if (running := self._running.get(exec_id)) is None:
            raise Conflict(f"exec {exec_id} is not running")
        await running.resize(rows, columns)

    async def _watch(self, live: Live, info: ExecInfo, running: RunningExec) -> None:
        info.exit_code = await running.wait()
        info.running = False
        self._running.pop(info.id, None)
        self._publish(live, "exec_die", info, exitCode=str(info.exit_code))
        asyncio.get_running_loop().call_later(KEEP_ENDED_S, self._infos.pop, info.id, None)

    def _running_container(self, reference: str) -> Live:
        live = self._resolve(reference)
        status = live.record.state.status
        if status is Status.PAUSED:
            raise Conflict(f"Container {reference} is paused, unpause the container before exec")
        if status not in ALIVE:
            raise Conflict(f"container {live.id} is not running")
        return live

    def _publish(self, live: Live, action: str, info: ExecInfo, **more: str) -> None:
        record = live.record
        attributes = {"image": record.config.image, "name": record.name, "execID": info.id} | more
        self._events.publish("container", action, record.id, record.config.labels | attributes)


def _hang_up(beginning: asyncio.Task[ExecAttachment | None]) -> None:
    """Nobody has waited for this start."""
    if not beginning.cancelled() and beginning.exception() is None and (attachment := beginning.result()) is not None:
        attachment.close()
