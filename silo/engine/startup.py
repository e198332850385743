"""Bring a container up: plan, prepare, plug in, start; and take all of that back."""

from __future__ import annotations

import msgspec

from silo.engine.disks import for_card
from silo.engine.events import EventBus
from silo.engine.parts import Parts
from silo.engine.planning import hostname_of, plan_container, write_special_files
from silo.engine.roster import Live, Roster
from silo.engine.states import ALIVE
from silo.errors import Conflict, GuestError
from silo.model.clock import now
from silo.model.container import Health, Status
from silo.model.network import Endpoint
from silo.model.runtime import Sandbox

_MAXIMUM_SHARED_BYTES = 1 << 20


class Startup:
    """The half of a container's lifecycle that talks to all ports."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events

    async def bring_up(self, live: Live, health: Health | None) -> None:
        """The container runs and its record says so, or this raises and `release` is due."""
        parts, record = self._parts, live.record
        runtime = parts.runtime(record.isolation)
        image = parts.image_of(record)
        self._check_neighbours(live)
        plan = await plan_container(parts, record, image)
        sandbox = await runtime.prepare(plan)
        endpoints = await self._plug_in(live, sandbox)
        started = await runtime.start(record.id)
        self._roster.replace(
            live,
            endpoints=endpoints,
            state=msgspec.structs.replace(
                record.state,
                status=Status.RUNNING,
                pid=started.pid,
                exit_code=0,
                error="",
                oom_killed=False,
                started_at=now(),
                stopped_by_user=False,
                health=health,
            ),
        )

    async def _plug_in(self, live: Live, sandbox: Sandbox) -> tuple[Endpoint, ...]:
        parts, record = self._parts, live.record
        config = record.config
        if not config.endpoints or sandbox.netns is None:
            if config.network_mode.startswith("container:"):
                self._share_resolver(live)
            return ()
        names = [record.name, record.id[:12], hostname_of(record)]
        endpoints = await parts.networks.connect(
            record.id, sandbox, for_card(record, config.endpoints), dns_names=tuple(dict.fromkeys(names))
        )
        write_special_files(
            record,
            parts.storage.container_directory(record.id),
            endpoints=endpoints,
            resolver=parts.networks.resolver_address(endpoints),
        )
        bindings = await parts.networks.publish(record.id, config.ports, endpoints) if config.ports else ()
        self._roster.replace(live, endpoints=endpoints, bindings=bindings)
        for endpoint in endpoints:
            self._events.publish(
                "network", "connect", endpoint.network_id, {"container": record.id, "name": endpoint.network_name}
            )
        return endpoints

    def _share_resolver(self, live: Live) -> None:
        """A container in another's network resolves names as that one does."""
        storage = self._parts.storage
        owner = live.record.config.network_mode.partition(":")[2]
        for name in ("hosts", "resolv.conf"):
            source = storage.container_directory(owner) / name
            if not source.exists():
                continue
            with source.open("rb") as file:
                untrusted_text = file.read(_MAXIMUM_SHARED_BYTES + 1)
            if len(untrusted_text) > _MAXIMUM_SHARED_BYTES:
                raise GuestError(
                    f"the file /etc/{name} of container {owner[:12]} is too large to be shared",
                    hint=f"at most {_MAXIMUM_SHARED_BYTES} bytes: that container has written to it",
                )
            (storage.container_directory(live.id) / name).write_bytes(untrusted_text)

    def _check_neighbours(self, live: Live) -> None:
        config = live.record.config
        for mode in (config.network_mode, config.namespaces.ipc, config.namespaces.pid):
            if mode.startswith("container:"):
                owner = self._roster.find(mode.partition(":")[2])
                if owner is None or owner.record.state.status not in ALIVE:
                    name = owner.name if owner else mode.partition(":")[2][:12]
                    raise Conflict(f"cannot join the namespaces of container {name}: it is not running")

    async def release(self, live: Live) -> None:
        """Everything that a start made, in whatever state; idempotent."""
        try:
            await self._parts.runtime(live.record.isolation).release(live.id)
        finally:
            await self._parts.networks.release(live.id)
            if live.record.endpoints or live.record.bindings:
                self._roster.replace(live, endpoints=(), bindings=())
