"""The containers that exist: records (durable) and what is known of them only while the daemon lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from silo.engine.states import check_transition
from silo.errors import Conflict, InvalidRequest, NotFound
from silo.model.container import ContainerRecord, State
from silo.model.ids import NAME_PATTERN, random_name
from silo.model.persistence import Documents


class Signal:
    """Wakes all that wait, any number of times; a waiter that comes late misses nothing if it checks its condition first."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class WaitResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `docker wait`."""

    exit_code: int
    error: str = ""


class Live:
    """One container while the daemon lives: its record, its lock, and whoever waits for it."""

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.changed = Signal()
        """Output was logged, or a run ended, or the container is gone."""
        self.ended_runs = 0
        """Counts exits, failed starts and removal: what an attachment compares against to know that its run is over."""
        self.settled = Signal()
        """An exit has been dealt with wholly."""
        self.waiters: list[tuple[str, asyncio.Future[WaitResult]]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        """Health probe and pending restart; cancelled when the run ends."""
        self.restart_delay_s = 0.0
        self.gone = False
        self.restarting = False
        """Somebody restarts it: an end does not remove it now, whatever `--rm` says."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    def end_run(self) -> None:
        """The log of this run is complete: attachments read to its end and stop."""
        self.ended_runs += 1
        self.changed.notify()

    def answer_waiters(self, result: WaitResult, applies: Callable[[str], bool]) -> None:
        remaining = []
        for condition, waiter in self.waiters:
            if not applies(condition):
                remaining.append((condition, waiter))
            elif not waiter.done():
                waiter.set_result(result)
        self.waiters = remaining

    def cancel_tasks(self) -> None:
        for task in tuple(self.tasks):
            task.cancel()
        self.tasks.clear()


class Roster:
    """All containers by id and name; every change of a record goes through here and is durable when the call returns."""

    def __init__(self, documents: Documents[ContainerRecord]) -> None:
        self._documents = documents
        self._live: dict[str, Live] = {record.id: Live(record) for _, record in documents.items()}
        self._names: dict[str, str] = {live.name: live.id for live in self._live.values()}

    def __iter__(self) -> Iterator[Live]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def find(self, container_id: str) -> Live | None:
        """By full id."""
        return self._live.get(container_id)

    def resolve(self, reference: str) -> Live:
        """By id, name, or unique prefix of an id; names win over prefixes, as in Docker."""
        wanted = reference.removeprefix("/")
        if not wanted:
            raise InvalidRequest("a container's name or id is missing")
        known = self._names.get(wanted, wanted)
        if known in self._live:
            return self._live[known]
        matches = [live for key, live in self._live.items() if key.startswith(wanted)]
        if len(matches) > 1:
            raise InvalidRequest(
                f"{reference} is the beginning of {len(matches)} containers' ids", hint="give more digits"
            )
        if not matches:
            raise NotFound(f"No such container: {reference}")
        return matches[0]

    def choose_name(self, wanted: str) -> str:
        """A checked name, or a free random one when `wanted` is empty."""
        name = wanted.removeprefix("/")
        if name:
            self._check_name(name)
            return name
        while (name := random_name()) in self._names:
            name = f"{name}{len(self._names)}"
            if name not in self._names:
                break
        return name

    def _check_name(self, name: str) -> None:
        if not NAME_PATTERN.match(name):
            raise InvalidRequest(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
                hint="two characters at least",
            )
        if name in self._names:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._names[name]}".',
                hint="remove or rename that container, or choose another name",
            )

    def add(self, record: ContainerRecord) -> Live:
        self._check_name(record.name)
        self._documents.put(record.id, record, name=record.name)
        live = Live(record)
        self._live[record.id] = live
        self._names[record.name] = record.id
        return live

    def rename(self, live: Live, name: str) -> None:
        name = name.removeprefix("/")
        self._check_name(name)
        before = live.name
        self.replace(live, name=name)
        del self._names[before]
        self._names[name] = live.id

    def replace(self, live: Live, **changes: Any) -> ContainerRecord:
        """Store a changed record; `state` changes are checked against the table of transitions."""
        state: State | None = changes.get("state")
        if state is not None:
            check_transition(live.name, live.record.state.status, state.status)
        record: ContainerRecord = msgspec.structs.replace(live.record, **changes)
        self._documents.put(record.id, record, name=record.name)
        live.record = record
        return record

    def set_state(self, live: Live, **changes: Any) -> ContainerRecord:
        """Change fields of the state only."""
        return self.replace(live, state=msgspec.structs.replace(live.record.state, **changes))

    def remove(self, live: Live) -> None:
        self._documents.delete(live.id)
        del self._live[live.id]
        self._names.pop(live.name, None)
        live.gone = True
        live.end_run()
