"""Start, stop and end of containers: what happens between two states of the table in `states`.

A container's lock is held while it starts and while its end is dealt with, never while somebody waits for an end. The end of
a run arrives as `on_exit` from the runtime, for whatever reason it came; everything that follows from an end (restart policy,
`--rm`, waiters, events) is decided in `_settle_exit` and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from silo.engine.events import EventBus
from silo.engine.health import Prober
from silo.engine.parts import Parts
from silo.engine.roster import Live, Roster, WaitResult
from silo.engine.signals import parse_signal
from silo.engine.startup import Startup
from silo.engine.states import ALIVE
from silo.errors import Conflict, GuestError, NoSpace, NotModified, ProcessStartFailed, SiloError, Unavailable
from silo.model.clock import now, parse_time
from silo.model.container import Status
from silo.model.mount import MountKind
from silo.model.runtime import ExitRecord

log = logging.getLogger(__name__)

FIRST_RESTART_DELAY_S = 0.1
LONGEST_RESTART_DELAY_S = 60.0
# A run at least this long starts the delays anew (Docker's rule).
STABLE_RUN_S = 10.0
KILL_PATIENCE_S = 10.0
SHORTEST_PATIENCE_S = 1.0
FULL_DISK_RETRY_S = 1.0


class Lifecycle:
    """The listener of every runtime, and the use cases that change whether a container runs."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events
        self._startup = Startup(parts, roster, events)
        self._prober = Prober(parts, roster, events)
        self._tasks: set[asyncio.Task[Any]] = set()

    # What runtimes tell

    def on_exit(self, container_id: str, record: ExitRecord) -> None:
        live = self._roster.find(container_id)
        if live is None:
            return
        live.end_run()
        self._spawn(self._settle_for_sure(live, record))

    def on_output(self, container_id: str) -> None:
        if (live := self._roster.find(container_id)) is not None:
            live.changed.notify()

    def on_out_of_memory(self, container_id: str) -> None:
        if (live := self._roster.find(container_id)) is not None:
            self.publish(live, "oom")

    # Start

    async def start(self, live: Live) -> None:
        """Raises NotModified when it runs, ProcessStartFailed and whatever a port raises; nothing is left running then."""
        async with live.lock:
            status = live.record.state.status
            if status in ALIVE:
                raise NotModified(f"container {live.name} is running")
            if status in (Status.REMOVING, Status.DEAD):
                raise Conflict(f"container {live.name} is being removed")
            live.cancel_tasks()
            await self._start(live)

    async def _start(self, live: Live) -> None:
        try:
            await self._startup.bring_up(live, self._prober.first(live.record.config))
            live.changed.notify()
            self.publish(live, "start")
        except BaseException as error:
            await self._give_up(live, error)
            raise
        if live.record.config.healthcheck is not None:
            self._prober.begin(live)

    async def _give_up(self, live: Live, error: BaseException) -> None:
        """A start that failed: everything made for it goes, the record says why."""
        await self._startup.release(live)
        code = 127 if isinstance(error, ProcessStartFailed) and error.kind == "not_found" else 126
        code = code if isinstance(error, ProcessStartFailed) else 128
        text = str(error) if isinstance(error, SiloError) else f"{type(error).__name__}: {error}"
        self._roster.set_state(live, error=text, exit_code=code, pid=0)
        if live.record.state.status is Status.RESTARTING:
            self._roster.set_state(live, status=Status.EXITED, finished_at=now())
        live.end_run()
        live.answer_waiters(WaitResult(exit_code=code, error=text), lambda condition: condition != "removed")
        if live.record.config.auto_remove:
            # As Docker does: `docker run --rm` waits for the removal also when nothing ever ran.
            await self.delete(live, volumes=True)

    # End

    async def _settle_for_sure(self, live: Live, record: ExitRecord) -> None:
        """An end is dealt with however long the disk is full."""
        while True:
            try:
                return await self._settle_exit(live, record)
            except NoSpace as error:
                log.error("container %s has ended, which cannot be written down yet: %s", live.id[:12], error)
                await asyncio.sleep(FULL_DISK_RETRY_S)

    async def _settle_exit(self, live: Live, record: ExitRecord) -> None:
        async with live.lock:
            if live.gone or live.record.state.status not in ALIVE | {Status.REMOVING}:
                return
            live.cancel_tasks()
            before = live.record.state
            for endpoint in live.record.endpoints:
                self._events.publish(
                    "network", "disconnect", endpoint.network_id, {"container": live.id, "name": endpoint.network_name}
                )
            try:
                await self._startup.release(live)
            except SiloError:
                log.exception("container %s: cleaning up after its end failed", live.id[:12])
            again = self._restarts(live, record)
            if before.status is not Status.REMOVING:
                self._roster.set_state(
                    live,
                    status=Status.RESTARTING if again else Status.EXITED,
                    pid=0,
                    exit_code=record.exit_code,
                    oom_killed=record.oom_killed,
                    error=record.error,
                    finished_at=record.finished_at,
                )
            self.publish(live, "die", exitCode=str(record.exit_code))
            live.answer_waiters(
                WaitResult(exit_code=record.exit_code),
                lambda condition: condition == "next-exit" or (condition == "not-running" and not again),
            )
            if again:
                self._schedule_restart(live, record)
            elif live.record.config.auto_remove and not live.restarting and before.status is not Status.REMOVING:
                await self.delete(live, volumes=True)
        live.settled.notify()

    def _restarts(self, live: Live, record: ExitRecord) -> bool:
        policy, state = live.record.config.restart, live.record.state
        if state.status is Status.REMOVING or state.stopped_by_user:
            return False
        if policy.name in ("always", "unless-stopped"):
            return True
        if policy.name == "on-failure" and record.exit_code != 0:
            return not policy.maximum_retries or state.restart_count < policy.maximum_retries
        return False

    def _schedule_restart(self, live: Live, record: ExitRecord) -> None:
        ran_s = _seconds_between(live.record.state.started_at, record.finished_at)
        if ran_s >= STABLE_RUN_S or not live.restart_delay_s:
            live.restart_delay_s = FIRST_RESTART_DELAY_S
        delay_s = live.restart_delay_s
        live.restart_delay_s = min(delay_s * 2, LONGEST_RESTART_DELAY_S)
        live.tasks.add(self._spawn(self._restart_after(live, delay_s)))

    async def _restart_after(self, live: Live, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with live.lock:
            live.tasks.clear()
            if live.gone or live.record.state.status is not Status.RESTARTING:
                return
            self._roster.set_state(live, restart_count=live.record.state.restart_count + 1)
            try:
                await self._start(live)
            except SiloError as error:
                log.error("container %s: restart failed: %s", live.id[:12], error)

    async def stop(self, live: Live, timeout_s: int | None, signal_text: str = "") -> None:
        """Ask, wait, kill. Raises NotModified when it does not run."""
        record = live.record
        if record.state.status is Status.RESTARTING:
            await self._cancel_restart(live)
            return
        if record.state.status not in ALIVE:
            raise NotModified(f"container {live.name} is not running")
        image = self._parts.find_image_of(record)
        personality = self._parts.personality(record.personality)
        text = signal_text or record.config.stop_signal or (image.config.stop_signal if image else "")
        number = parse_signal(text) if text else personality.default_stop_signal()
        grace = timeout_s if timeout_s is not None else record.config.stop_timeout_s
        if grace is None and image is not None:
            grace = image.config.stop_timeout_s
        if grace is None:
            grace = personality.default_stop_timeout_s()
        self._roster.set_state(live, stopped_by_user=True)
        await self._end(live, number, None if grace < 0 else float(grace))
        self.publish(live, "stop")

    async def _cancel_restart(self, live: Live) -> None:
        async with live.lock:
            live.cancel_tasks()
            if live.record.state.status is Status.RESTARTING:
                self._roster.set_state(live, status=Status.EXITED, stopped_by_user=True)
                code = live.record.state.exit_code
                live.answer_waiters(WaitResult(exit_code=code), lambda condition: condition == "not-running")
                if live.record.config.auto_remove:
                    await self.delete(live, volumes=True)

    async def _end(self, live: Live, number: int, grace_s: float | None) -> None:
        """Signal, wait for the end to be dealt with, kill after `grace_s` (None: never)."""
        runtime = self._parts.runtime(live.record.isolation)
        if live.record.state.status is Status.PAUSED:
            # one that does not wake up is killed below
            with suppress(GuestError, Unavailable):
                await runtime.unpause(live.id)
        # A launcher that is just going away with its container is no failure, and one that broke is killed below.
        # One that does not answer at all has no longer than the program itself.
        with suppress(Conflict, GuestError, Unavailable, TimeoutError):
            patience_s = None if grace_s is None else max(grace_s, SHORTEST_PATIENCE_S)
            await asyncio.wait_for(runtime.signal(live.id, number), patience_s)
        try:
            await asyncio.wait_for(self._settled(live), grace_s)
            return
        except TimeoutError:
            log.info("container %s did not end within %s s of signal %d: killing it", live.id[:12], grace_s, number)
        with suppress(Conflict):
            await runtime.signal(live.id, signals.SIGKILL)
        await self._settled(live)

    async def _settled(self, live: Live) -> None:
        while live.record.state.status in ALIVE and not live.gone:
            await live.settled.wait()

    async def kill(self, live: Live, text: str) -> None:
        """One signal. Raises Conflict when it does not run."""
        number = parse_signal(text)
        if live.record.state.status not in ALIVE:
            raise Conflict(f"cannot kill container: {live.name}: container {live.id} is not running")
        if number in (signals.SIGKILL, signals.SIGTERM):
            self._roster.set_state(live, stopped_by_user=True)
        runtime = self._parts.runtime(live.record.isolation)
        if live.record.state.status is Status.PAUSED and number == signals.SIGKILL:
            with suppress(GuestError, Unavailable):
                await runtime.unpause(live.id)
        await runtime.signal(live.id, number)
        self.publish(live, "kill", signal=str(number))
        if number == signals.SIGKILL:
            # As Docker: after `kill` the container can be removed.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled(live), KILL_PATIENCE_S)

    async def restart(self, live: Live, timeout_s: int | None, signal_text: str = "") -> None:
        """Stop (when it runs) and start; an `--rm` container survives this."""
        live.restarting = True
        try:
            with suppress(NotModified):
                await self.stop(live, timeout_s, signal_text)
            await self.start(live)
        finally:
            live.restarting = False
        self.publish(live, "restart")

    async def pause(self, live: Live, *, held: bool = False) -> None:
        """`held`: for a moment and not by a user; should the daemon die meanwhile, the next one lets it go on."""
        async with live.lock:
            if live.record.state.status is not Status.RUNNING:
                raise Conflict(f"container {live.name} is {live.record.state.status}, not running")
            if held:
                self._roster.set_state(live, held=True)
            await self._parts.runtime(live.record.isolation).pause(live.id)
            self._roster.set_state(live, status=Status.PAUSED)
        self.publish(live, "pause")

    async def unpause(self, live: Live) -> None:
        async with live.lock:
            if live.record.state.status is not Status.PAUSED:
                raise Conflict(f"Container {live.name} is not paused")
            await self._parts.runtime(live.record.isolation).unpause(live.id)
            self._roster.set_state(live, status=Status.RUNNING, held=False)
        self.publish(live, "unpause")

    async def let_go(self, live: Live) -> None:
        """After a daemon's death: what it had paused for a moment goes on."""
        if live.record.state.status is Status.PAUSED:
            await self.unpause(live)
        else:
            self._roster.set_state(live, held=False)

    # Removal

    async def remove(self, live: Live, *, force: bool, volumes: bool) -> None:
        """Raises Conflict for a running container unless forced."""
        while True:
            status = live.record.state.status
            if status in ALIVE | {Status.RESTARTING} and not force:
                raise Conflict(
                    f'cannot remove container "{live.name}": container is {status}: stop the container before removing or '
                    "force remove"
                )
            if status is Status.RESTARTING:
                await self._cancel_restart(live)
            if live.record.state.status in ALIVE:
                self._roster.set_state(live, stopped_by_user=True)
                await self._end(live, signals.SIGKILL, None)
            async with live.lock:
                if live.gone:
                    return
                # it may have been on its way up while the lock was waited for
                if live.record.state.status not in ALIVE | {Status.RESTARTING}:
                    await self.delete(live, volumes=volumes)
                    return

    async def delete(self, live: Live, *, volumes: bool) -> None:
        """Everything of a container that does not run; its lock is held by the caller. A crash on the way is finished by
        recovery, which sees the status `removing`."""
        live.cancel_tasks()
        record = live.record
        self._roster.set_state(live, status=Status.REMOVING)
        await self._startup.release(live)
        await self._parts.storage.remove_scratch(record.id)
        if volumes:
            self._drop_anonymous_volumes(live)
        self._roster.remove(live)
        self.publish(live, "destroy")
        live.answer_waiters(
            WaitResult(exit_code=record.state.exit_code, error=record.state.error), lambda _condition: True
        )
        live.settled.notify()

    def _drop_anonymous_volumes(self, live: Live) -> None:
        storage = self._parts.storage
        others = {
            point.name for other in self._roster if other is not live for point in other.record.mounts if point.name
        }
        for point in live.record.mounts:
            if point.kind is MountKind.VOLUME and point.name not in others:
                try:
                    if storage.volume(point.name).anonymous:
                        storage.remove_volume(point.name)
                        self._events.publish("volume", "destroy", point.name, {"driver": "local"})
                except SiloError as error:
                    log.warning("anonymous volume %s stays: %s", point.name, error)

    # After a daemon's restart

    def resume_health(self, live: Live) -> None:
        """Probe a container that ran while no daemon did."""
        self._prober.begin(live)

    def resume_restart(self, live: Live) -> None:
        """A restart was pending when the daemon ended."""
        live.tasks.add(self._spawn(self._restart_after(live, live.restart_delay_s or FIRST_RESTART_DELAY_S)))

    # Small things

    def publish(self, live: Live, action: str, **more: str) -> None:
        record = live.record
        attributes = {"image": record.config.image, "name": record.name} | more
        self._events.publish("container", action, record.id, record.config.labels | attributes)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report_failure)
        return task

    async def drain(self) -> None:
        """Let ends that arrived before a shutdown be dealt with; pending restarts are left to the next daemon."""
        for live in self._roster:
            live.cancel_tasks()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task failed", exc_info=error)


def _seconds_between(earlier: str, later: str) -> float:
    return (parse_time(later) - parse_time(earlier)) / 1e9
