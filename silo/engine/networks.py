"""The use cases around networks."""

from __future__ import annotations

from collections.abc import Mapping

from silo.engine.containers import Containers
from silo.engine.events import EventBus
from silo.engine.filters import Filters, any_of, check_keys, labels_match, parse_flag, parse_moment_ns
from silo.engine.parts import Parts
from silo.engine.roster import Roster
from silo.errors import Conflict, InvalidRequest
from silo.model.clock import now, parse_time
from silo.model.ids import NAME_PATTERN, new_id
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig

PREDEFINED = frozenset({"bridge", "host", "none"})


class NetworkUseCases:
    """`docker network …`."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus, containers: Containers) -> None:
        self._networks = parts.networks
        self._roster = roster
        self._events = events
        self._containers = containers

    def all(self, filters: Filters | None = None) -> tuple[NetworkConfig, ...]:
        filters = filters or {}
        check_keys(filters, ("id", "name", "driver", "label", "label!", "scope", "type", "dangling"))
        dangling = filters.get("dangling", ())
        wanted = parse_flag(dangling[0], "dangling") if dangling else None

        def matches(network: NetworkConfig) -> bool:
            kind = "builtin" if network.name in PREDEFINED else "custom"
            return (
                labels_match(network.labels, filters)
                and any_of(filters, "id", lambda text: network.id.startswith(text))
                and any_of(filters, "name", lambda text: text in network.name)
                and any_of(filters, "driver", lambda text: text == network.driver)
                and any_of(filters, "scope", lambda text: text == "local")
                and any_of(filters, "type", lambda text: text == kind)
                and (wanted is None or (kind == "custom" and not self.containers_on(network.id)) is wanted)
            )

        return tuple(network for network in self._networks.all() if matches(network))

    def get(self, reference: str) -> NetworkConfig:
        return self._networks.get(reference)

    def containers_on(self, network_id: str) -> Mapping[str, tuple[str, Endpoint]]:
        """Running containers on a network: id → (name, endpoint)."""
        return {
            live.id: (live.name, endpoint)
            for live in self._roster
            for endpoint in live.record.endpoints
            if endpoint.network_id == network_id
        }

    async def create(self, config: NetworkConfig, *, check_duplicate: bool = True) -> NetworkConfig:
        del check_duplicate  # names are always unique here
        if not NAME_PATTERN.match(config.name):
            raise InvalidRequest(f"invalid network name {config.name!r}", hint="letters, digits, _ . -")
        if config.name in PREDEFINED or any(known.name == config.name for known in self._networks.all()):
            raise Conflict(f"network with name {config.name} already exists")
        made = await self._networks.create(
            NetworkConfig(
                **{
                    field: getattr(config, field)
                    for field in config.__struct_fields__
                    if field not in ("id", "created")
                },
                id=config.id or new_id(),
                created=now(),
            )
        )
        self._events.publish("network", "create", made.id, {"name": made.name, "type": made.driver})
        return made

    async def remove(self, reference: str) -> None:
        network = self._networks.get(reference)
        users = [name for name, _ in self.containers_on(network.id).values()]
        if users:
            raise Conflict(
                f"error while removing network: network {network.name} has active endpoints",
                hint=f"stop or disconnect {', '.join(sorted(users))}",
            )
        await self._networks.remove(network.id)
        self._events.publish("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    async def connect(self, reference: str, container: str, request: EndpointRequest) -> None:
        await self._containers.connect(self._networks.get(reference).id, container, request)

    async def disconnect(self, reference: str, container: str, *, force: bool = False) -> None:
        await self._containers.disconnect(self._networks.get(reference).id, container, force=force)

    async def prune(self, filters: Filters) -> tuple[str, ...]:
        """Remove user-defined networks that no container names. Answers their names."""
        check_keys(filters, ("label", "label!", "until"))
        until = [parse_moment_ns(text) for text in filters.get("until", ())]
        used = {request.network for live in self._roster for request in live.record.config.endpoints}
        removed = []
        for network in self._networks.all():
            if network.name in PREDEFINED or network.id in used or not labels_match(network.labels, filters):
                continue
            if any(parse_time(network.created) >= moment for moment in until):
                continue
            await self.remove(network.id)
            removed.append(network.name)
        return tuple(removed)
