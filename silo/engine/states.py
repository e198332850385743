"""The lifecycle of a container as a table: which status may follow which."""

from __future__ import annotations

from silo.errors import Conflict
from silo.model.container import Status

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.RUNNING, Status.EXITED, Status.REMOVING}),
    Status.RUNNING: frozenset({Status.PAUSED, Status.EXITED, Status.RESTARTING, Status.REMOVING}),
    Status.PAUSED: frozenset({Status.RUNNING, Status.EXITED, Status.RESTARTING, Status.REMOVING}),
    Status.RESTARTING: frozenset({Status.RUNNING, Status.EXITED, Status.REMOVING}),
    Status.EXITED: frozenset({Status.RUNNING, Status.RESTARTING, Status.REMOVING}),
    Status.REMOVING: frozenset({Status.DEAD}),
    Status.DEAD: frozenset({Status.REMOVING}),
}

ALIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""A process of the container exists."""

ACTIVE = ALIVE | {Status.RESTARTING}
"""`docker ps` without -a shows these."""


def check_transition(name: str, before: Status, after: Status) -> None:
    """Raises Conflict for a step that the table does not have; staying is always allowed."""
    if before != after and after not in TRANSITIONS[before]:
        raise Conflict(f"container {name} is {before}: it cannot become {after}")
