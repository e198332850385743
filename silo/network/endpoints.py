"""Plan endpoints: from a container's requests to addresses, interfaces and the plugs that make them. No I/O.

`plan_endpoint` reserves addresses in the pools; whoever calls it gives them back when the rest fails.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from silo.errors import Conflict, InvalidRequest
from silo.model.ids import new_id
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig
from silo.network.addresses import Address, AddressPool, link_local_of, mac_of
from silo.network.definitions import ICC, interface_prefix, is_enabled
from silo.network.members import Pools
from silo.network.plumbing import HOST_INTERFACE_PREFIX, Plug, interface_of

_MAC_PATTERN = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
_ALIAS_PATTERN = re.compile(r"^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,252})$")


@dataclass(frozen=True, slots=True)
class PlannedEndpoint:
    """An endpoint and how it is plugged in; no plug for the networks host and none."""

    endpoint: Endpoint
    plug: Plug | None


def is_plain(request: EndpointRequest) -> bool:
    """Nothing asked for that an interface made ahead does not have."""
    return not (request.ipv4_address or request.ipv6_address or request.mac_address)


def plan_bare_endpoint(network: NetworkConfig) -> PlannedEndpoint:
    """On the networks host and none: no interface of its own."""
    endpoint = Endpoint(
        network_id=network.id,
        network_name=network.name,
        endpoint_id=new_id(),
        ipv4_address="",
        prefix_length=0,
        gateway="",
        mac_address="",
        interface="",
        host_interface="",
    )
    return PlannedEndpoint(endpoint, None)


def plan_endpoint(
    network: NetworkConfig,
    pools: Pools,
    request: EndpointRequest,
    *,
    owner: str,
    taken_interfaces: Iterable[str],
    taken_macs: Iterable[str],
    default_route: bool,
    mtu: int,
    dns_names: Sequence[str],
) -> PlannedEndpoint:
    """Choose addresses and names. Raises InvalidRequest, Conflict, Unavailable; then nothing is reserved."""
    mac_address = _check_mac(request.mac_address, taken_macs)
    aliases = _check_aliases(request)
    if request.ipv6_address and pools.v6 is None:
        raise InvalidRequest(f"the network {network.name} has no IPv6", hint="create it with --ipv6 and a subnet")
    ipv4 = _reserve(pools.v4, request.ipv4_address, owner, version=4)
    try:
        ipv6 = None if pools.v6 is None else _reserve(pools.v6, request.ipv6_address, owner, version=6)
    except BaseException:
        pools.v4.give_back(ipv4, owner)
        raise
    endpoint_id = new_id()
    length = pools.v4.subnet.prefixlen
    ipv6_length = pools.v6.subnet.prefixlen if pools.v6 else 0
    endpoint = Endpoint(
        network_id=network.id,
        network_name=network.name,
        endpoint_id=endpoint_id,
        ipv4_address=str(ipv4),
        prefix_length=length,
        gateway="" if network.internal else network.gateway,
        mac_address=mac_address or mac_of(ipv4),
        interface=_choose_interface(interface_prefix(network), taken_interfaces),
        host_interface=HOST_INTERFACE_PREFIX + endpoint_id[:12],
        aliases=aliases,
        dns_names=tuple(dns_names),
        ipv6_address=str(ipv6) if ipv6 else "",
        ipv6_prefix_length=ipv6_length if ipv6 else 0,
        ipv6_gateway=network.ipv6_gateway if ipv6 and not network.internal else "",
        links=request.links,
    )
    return PlannedEndpoint(endpoint, build_plug(endpoint, network, default_route=default_route, mtu=mtu))


def build_plug(endpoint: Endpoint, network: NetworkConfig, *, default_route: bool, mtu: int) -> Plug:
    addresses = [interface_of(endpoint.ipv4_address, endpoint.prefix_length)]
    if endpoint.ipv6_address:
        addresses.append(interface_of(endpoint.ipv6_address, endpoint.ipv6_prefix_length))
        addresses.append(interface_of(link_local_of(endpoint.mac_address), 64))
    return Plug(
        host_interface=endpoint.host_interface,
        interface=endpoint.interface,
        bridge=network.bridge,
        mac_address=endpoint.mac_address,
        mtu=mtu,
        addresses=tuple(addresses),
        gateways=gateways_of(endpoint) if default_route else (),
        isolated=not is_enabled(network, ICC),
    )


def gateways_of(endpoint: Endpoint) -> tuple[Address, ...]:
    return tuple(ipaddress.ip_address(text) for text in (endpoint.gateway, endpoint.ipv6_gateway) if text)


def name_endpoint(endpoint: Endpoint, request: EndpointRequest, dns_names: Sequence[str]) -> Endpoint:
    """An endpoint made ahead with the names that its container asks for. Raises InvalidRequest."""
    aliases = _check_aliases(request)
    return msgspec.structs.replace(endpoint, aliases=aliases, links=request.links, dns_names=tuple(dns_names))


def _reserve(pool: AddressPool, text: str, owner: str, *, version: int) -> Address:
    if not text:
        return pool.take(owner)
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!r} is not an IP address") from error
    if address.version != version:
        raise InvalidRequest(f"{address} is not an IPv{version} address")
    if pool.owner(address) is not None:
        pool.claim(address, "")  # raises, naming the owner
    pool.claim(address, owner)
    return address


def _choose_interface(prefix: str, taken: Iterable[str]) -> str:
    used = set(taken)
    number = 0
    while f"{prefix}{number}" in used:
        number += 1
    return f"{prefix}{number}"


def _check_mac(text: str, taken: Iterable[str]) -> str:
    if not text:
        return ""
    address = text.lower().replace("-", ":")
    if not _MAC_PATTERN.match(address):
        raise InvalidRequest(
            f"{text[:64]!r} is not a MAC address", hint="six pairs of hex digits, such as 02:42:ac:11:00:02"
        )
    if int(address[:2], 16) & 1 or address == "00:00:00:00:00:00":
        raise InvalidRequest(f"the MAC address {address} is no address of one station")
    if address in set(taken):
        raise Conflict(f"the MAC address {address} is already in use on this network")
    return address


def _check_aliases(request: EndpointRequest) -> tuple[str, ...]:
    for name in (*request.aliases, *(part for link in request.links for part in link.split(":") if part)):
        if not _ALIAS_PATTERN.match(name):
            raise InvalidRequest(f"{name[:64]!r} cannot be a name on a network")
    return tuple(dict.fromkeys(request.aliases))
