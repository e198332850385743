"""Published ports: check what is asked, reserve ports on the host, turn bindings into targets of the packet filter.

Blocks (looks into /proc when a port is taken): used in the network's worker thread.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import msgspec

from silo.errors import Conflict, InvalidRequest, Unsupported
from silo.model.network import Endpoint, PortBinding
from silo.network.firewall import Target
from silo.network.holds import Holds

# How often a port that is free for IPv4 may turn out to be taken for IPv6, when any will do.
_TRIES = 20


def normalise(binding: PortBinding, *, default_host_ip: str, with_ipv6: bool) -> list[PortBinding]:
    """One binding for each address family meant. Raises InvalidRequest, Unsupported."""
    if binding.protocol not in ("tcp", "udp"):
        raise Unsupported(f"publishing {binding.protocol[:16]} ports is not supported", hint="tcp and udp are")
    if not 1 <= binding.container_port <= 65535 or not 0 <= binding.host_port <= 65535:
        raise InvalidRequest(f"invalid port: {binding.host_port}:{binding.container_port}", hint="ports are 1 to 65535")
    hosts = [binding.host_ip]
    if not binding.host_ip:
        hosts = [default_host_ip or "0.0.0.0"]
        if not default_host_ip and with_ipv6:
            hosts.append("::")
    answer = []
    for host in hosts:
        try:
            address = ipaddress.ip_address(host)
        except ValueError as error:
            raise InvalidRequest(f"{host[:64]!r} is not an IP address to publish on") from error
        if address.version == 6 and not with_ipv6:
            raise Unsupported(
                f"publishing on the IPv6 address {address} needs a container with IPv6",
                hint="use a network made with --ipv6, or publish on an IPv4 address",
            )
        if address == ipaddress.ip_address("::1"):
            raise Unsupported("publishing on ::1 is not supported", hint="publish on 127.0.0.1")
        answer.append(msgspec.structs.replace(binding, host_ip=str(address)))
    return answer


def hold_all(
    holds: Holds, container_id: str, bindings: Sequence[PortBinding], endpoint: Endpoint, *, default_host_ip: str
) -> tuple[Target, ...]:
    """Reserve every port, or none."""
    held: list[PortBinding] = []
    try:
        for binding in dict.fromkeys(bindings):
            family_bindings = normalise(binding, default_host_ip=default_host_ip, with_ipv6=bool(endpoint.ipv6_address))
            held += _hold_families(holds, container_id, family_bindings)
    except BaseException:
        holds.let_go(held)
        raise
    return tuple(target_of(binding, endpoint) for binding in held)


def target_of(binding: PortBinding, endpoint: Endpoint) -> Target:
    return Target(binding, endpoint.ipv6_address if ":" in binding.host_ip else endpoint.ipv4_address)


def _hold_families(holds: Holds, container_id: str, bindings: Sequence[PortBinding]) -> list[PortBinding]:
    """The same port for all of them, also when any will do."""
    first, *others = bindings
    for attempt in range(_TRIES):
        held = [holds.hold(first, container_id)]
        try:
            for other in others:
                held.append(holds.hold(msgspec.structs.replace(other, host_port=held[0].host_port), container_id))
            return held
        except Conflict:
            holds.let_go(held)
            if first.host_port or attempt == _TRIES - 1:
                raise
        except BaseException:
            holds.let_go(held)
            raise
    raise AssertionError("unreachable")


def publishing_endpoint(endpoints: Sequence[Endpoint], is_internal: Callable[[str], bool]) -> Endpoint:
    """Where published ports lead: the first endpoint that the outside can reach. Raises InvalidRequest."""
    for endpoint in endpoints:
        if endpoint.ipv4_address and not is_internal(endpoint.network_id):
            return endpoint
    raise InvalidRequest(
        "ports cannot be published: the container is only on internal networks",
        hint="connect it to a network without --internal, or leave -p out",
    )
