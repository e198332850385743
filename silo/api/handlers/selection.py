"""`docker ps --filter`."""

from __future__ import annotations

from collections.abc import Sequence

from silo.api.decode.create import parse_isolation
from silo.engine.engine import Engine
from silo.engine.filters import Filters, any_of, check_keys, labels_match, parse_flag
from silo.engine.states import ACTIVE
from silo.errors import InvalidRequest, NotFound
from silo.model.container import ContainerRecord, Status
from silo.model.platform import Isolation

_KEYS = (
    "ancestor before exited expose health id is-task isolation label label! name network publish since status volume"
).split()
_HEALTH = ("starting", "healthy", "unhealthy", "none")


def select_containers(engine: Engine, filters: Filters, *, everything: bool, limit: int) -> Sequence[ContainerRecord]:
    """Newest first. Raises InvalidRequest for an unknown filter or value."""
    check_keys(filters, _KEYS)
    _check_values(filters)
    if filters.keys() & {"status", "exited"} or limit > 0:
        everything = True
    records = engine.containers.all()
    moments = {
        key: [engine.containers.resolve(text).created for text in filters.get(key, ())] for key in ("before", "since")
    }
    ancestors = _ancestors(engine, filters)
    networks = {network.name: network.id for network in engine.networks.all()} if "network" in filters else {}
    found = [
        record
        for record in records
        if (everything or record.state.status in ACTIVE)
        and _matches(record, filters, engine.default_isolation)
        and _on_network(record, filters, networks)
        and all(record.created < moment for moment in moments["before"])
        and all(record.created > moment for moment in moments["since"])
        and (ancestors is None or record.image_id in ancestors or record.config.image in ancestors)
    ]
    return found[:limit] if limit > 0 else found


def _check_values(filters: Filters) -> None:
    for status in filters.get("status", ()):
        if status not in tuple(Status):
            raise InvalidRequest(f"invalid filter 'status={status}'", hint=f"one of {', '.join(Status)}")
    for health in filters.get("health", ()):
        if health not in _HEALTH:
            raise InvalidRequest(f"invalid filter 'health={health}'", hint=f"one of {', '.join(_HEALTH)}")
    for code in filters.get("exited", ()):
        if not code.lstrip("-").isdigit():
            raise InvalidRequest(f"invalid filter 'exited={code}'", hint="a number")
    for key in ("publish", "expose"):
        for text in filters.get(key, ()):
            _port_range(key, text)


def _port_range(key: str, text: str) -> tuple[range, str]:
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    if not (first.isdigit() and (last.isdigit() if dash else True)):
        raise InvalidRequest(f"invalid filter '{key}={text}'", hint="a port such as 80/tcp, or a range")
    return range(int(first), int(last if dash else first) + 1), protocol or "tcp"


def _ancestors(engine: Engine, filters: Filters) -> set[str] | None:
    """Ids of the images asked for and of every image that is built upon one of them."""
    if "ancestor" not in filters:
        return None
    found: set[str] = set()
    for text in filters["ancestor"]:
        try:
            image = engine.images.get(text)
        except NotFound:
            found.add(text)
            continue
        count = len(image.layers)
        found |= {image.id} | {
            other.id for other in engine.images.all() if count and other.layers[:count] == image.layers
        }
    return found


def _matches(record: ContainerRecord, filters: Filters, default_isolation: Isolation) -> bool:
    state, config = record.state, record.config
    health = state.health.status if state.health is not None else "none"
    return (
        labels_match(config.labels, filters)
        and any_of(filters, "id", record.id.startswith)
        and any_of(
            filters,
            "name",
            lambda text: text.strip("^$/") in record.name if text[:1] != "^" else _anchored(text, record.name),
        )
        and any_of(filters, "status", lambda text: text == state.status)
        and any_of(filters, "health", lambda text: text == health)
        and any_of(
            filters,
            "exited",
            lambda text: int(text) == state.exit_code and state.status in (Status.EXITED, Status.DEAD),
        )
        and any_of(filters, "isolation", lambda text: parse_isolation(text, default_isolation) is record.isolation)
        and any_of(filters, "is-task", lambda text: not parse_flag(text, "is-task"))
        and any_of(filters, "volume", lambda text: any(text in (p.name, p.target) for p in record.mounts))
        and any_of(filters, "publish", lambda text: _publishes(record, text))
        and any_of(filters, "expose", lambda text: _exposes(record, text))
    )


def _anchored(text: str, name: str) -> bool:
    """`^/name$` and `^name`, the two patterns that compose and scripts use."""
    wanted = text[1:].removeprefix("/")
    return name == wanted[:-1] if wanted.endswith("$") else name.startswith(wanted)


def _publishes(record: ContainerRecord, text: str) -> bool:
    numbers, protocol = _port_range("publish", text)
    ports = record.bindings or record.config.ports
    return any(
        port.protocol == protocol and (port.host_port in numbers or port.container_port in numbers) for port in ports
    )


def _exposes(record: ContainerRecord, text: str) -> bool:
    numbers, protocol = _port_range("expose", text)
    exposed = {*record.config.exposed_ports, *(f"{p.container_port}/{p.protocol}" for p in record.config.ports)}
    return any(f"{number}/{protocol}" in exposed for number in numbers)


def _on_network(record: ContainerRecord, filters: Filters, networks: dict[str, str]) -> bool:
    mine = {request.network for request in record.config.endpoints} | {record.config.network_mode}
    return any_of(
        filters,
        "network",
        lambda text: networks.get(text, text) in mine or any(len(text) > 3 and name.startswith(text) for name in mine),
    )
