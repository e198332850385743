"""After a crash or a restart of the daemon: find out what became of every container, and finish what was begun.

The order matters. First the runtimes say which containers live and how the others ended (and clean what no record names),
then networks adopt the living ones' addresses, names and ports, then ends that nobody saw are dealt with as if they came now
(`--rm`, restart policies), and at last policies start what should run.
"""

from __future__ import annotations

import logging

from silo.engine.lifecycle import Lifecycle
from silo.engine.parts import Parts
from silo.engine.roster import Live, Roster
from silo.engine.states import ALIVE
from silo.errors import SiloError
from silo.model.clock import now
from silo.model.container import Status
from silo.model.exit_codes import KILLED
from silo.model.runtime import ExitRecord, RuntimeState

log = logging.getLogger(__name__)


async def recover(parts: Parts, roster: Roster, lifecycle: Lifecycle) -> None:
    """Bring records and reality together. One container's trouble never stops the others'."""
    states: dict[str, RuntimeState] = {}
    for isolation, runtime in parts.runtimes.items():
        ids = [live.id for live in roster if live.record.isolation is isolation]
        states.update(await runtime.recover(ids))
    alive = {live for live in roster if _lives(states.get(live.id))}
    await parts.networks.recover(
        {live.id: live.record.endpoints for live in alive}, {live.id: live.record.bindings for live in alive}
    )
    ended: list[tuple[Live, ExitRecord]] = []
    for live in roster:
        if live in alive:
            _adopt(roster, live, states[live.id])
        elif live.record.state.status in ALIVE:
            found = states.get(live.id)
            ended.append(
                (live, found.exit if found and found.exit else ExitRecord(exit_code=KILLED, finished_at=now()))
            )
    for live, record in ended:
        lifecycle.on_exit(live.id, record)
    known = {live.id for live in roster}
    for container_id in parts.storage.known_containers():
        if container_id not in known:
            log.info("removing the files of the half-made container %s", container_id[:12])
            await parts.storage.remove_scratch(container_id)
    for live in roster:
        await _resume(parts, lifecycle, live, alive)


def _lives(state: RuntimeState | None) -> bool:
    return state is not None and state.pid > 0 and state.exit is None


def _adopt(roster: Roster, live: Live, found: RuntimeState) -> None:
    """A container that runs, whatever the record says (the daemon may have died between start and record)."""
    status = Status.PAUSED if found.paused else Status.RUNNING
    if live.record.state.status not in ALIVE | {Status.CREATED, Status.EXITED, Status.RESTARTING}:
        return
    if live.record.state.status is Status.CREATED:
        roster.set_state(live, status=Status.RUNNING, pid=found.pid, started_at=now())
    roster.set_state(live, status=Status.RUNNING, pid=found.pid)
    roster.set_state(live, status=status)


async def _resume(parts: Parts, lifecycle: Lifecycle, live: Live, alive: set[Live]) -> None:
    """Finish a removal that was begun, and start what its restart policy wants running."""
    state, policy = live.record.state, live.record.config.restart
    try:
        if state.status in (Status.REMOVING, Status.DEAD):
            async with live.lock:
                # An end that nobody saw is being dealt with at the same time, and `--rm` may have removed it meanwhile.
                if not live.gone:
                    await lifecycle.delete(live, volumes=live.record.config.auto_remove)
        elif live in alive:
            if state.held:
                await lifecycle.let_go(live)
            lifecycle.resume_health(live)
        elif state.status is Status.RESTARTING:
            lifecycle.resume_restart(live)
        elif state.status is Status.EXITED and (
            policy.name == "always" or (policy.name == "unless-stopped" and not state.stopped_by_user)
        ):
            await lifecycle.start(live)
        elif state.status is Status.CREATED:
            # A start that was cut short may have left a sandbox or addresses; release is idempotent.
            await parts.runtime(live.record.isolation).release(live.id)
            await parts.networks.release(live.id)
    except SiloError as error:
        log.error("container %s: recovery: %s", live.id[:12], error)
