"""Who is on which network: endpoints, their addresses and names. In memory; rebuilt by `recover` after a restart.

Membership = one container's endpoint on one network, with the names it asked for
Members    = all of them, the address pools, and the answers that the DNS server needs
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from silo.model.network import Endpoint, NetworkConfig
from silo.network.addresses import Address, AddressPool


@dataclass(slots=True)
class Pools:
    """The address pools of one network."""

    v4: AddressPool
    v6: AddressPool | None


def make_pools(network: NetworkConfig) -> Pools:
    ip_range = ipaddress.ip_network(network.ip_range) if network.ip_range else None
    v4 = AddressPool(
        ipaddress.ip_network(network.subnet), ip_range=ip_range, reserved=[ipaddress.ip_address(network.gateway)]
    )
    v6 = None
    if network.ipv6:
        v6 = AddressPool(
            ipaddress.ip_network(network.ipv6_subnet), reserved=[ipaddress.ip_address(network.ipv6_gateway)]
        )
    return Pools(v4, v6)


class Members:
    """Containers by network, addresses and names. Names are compared without case, as DNS does."""

    def __init__(self) -> None:
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        self._names: dict[tuple[str, str], dict[str, Endpoint]] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        self.pools: dict[str, Pools] = {}

    def add(self, container_id: str, endpoint: Endpoint) -> None:
        self._endpoints.setdefault(container_id, {})[endpoint.network_id] = endpoint
        for name in _names_of(endpoint):
            self._names.setdefault((endpoint.network_id, name), {})[container_id] = endpoint
        for address in _addresses_of(endpoint):
            self._addresses[endpoint.network_id, str(address)] = container_id

    def remove(self, container_id: str, network_id: str) -> Endpoint | None:
        """Forget names; the addresses stay taken until `give_back`, which comes after the device is gone."""
        endpoints = self._endpoints.get(container_id, {})
        endpoint = endpoints.pop(network_id, None)
        if not endpoints:
            self._endpoints.pop(container_id, None)
        if endpoint is None:
            return None
        for name in _names_of(endpoint):
            holders = self._names.get((network_id, name), {})
            holders.pop(container_id, None)
            if not holders:
                self._names.pop((network_id, name), None)
        for address in _addresses_of(endpoint):
            self._addresses.pop((network_id, str(address)), None)
        return endpoint

    def give_back(self, owner: str, network_id: str, addresses: Iterable[Address]) -> None:
        pools = self.pools.get(network_id)
        if pools is None:
            return
        for address in addresses:
            pool = pools.v4 if address.version == 4 else pools.v6
            if pool is not None:
                pool.give_back(address, owner)

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        return tuple(self._endpoints.get(container_id, {}).values())

    def containers(self) -> tuple[str, ...]:
        return tuple(self._endpoints)

    def on_network(self, network_id: str) -> Iterator[tuple[str, Endpoint]]:
        for container_id, endpoints in self._endpoints.items():
            if network_id in endpoints:
                yield container_id, endpoints[network_id]

    def container_at(self, network_id: str, address: str) -> str | None:
        """Who has this address on this network."""
        return self._addresses.get((network_id, address))

    def resolve(self, name: str, network_ids: Iterable[str]) -> tuple[Endpoint, ...]:
        """Endpoints that answer to a name on the first of these networks that knows it."""
        wanted = name.lower()
        for network_id in network_ids:
            found = self._names.get((network_id, wanted))
            if found:
                return tuple(found.values())
        return ()

    def resolve_for(self, container_id: str, name: str) -> tuple[Endpoint, ...]:
        """The same as one container sees it: its own links first, then every network it is on."""
        wanted = name.lower()
        mine = self._endpoints.get(container_id, {})
        for network_id, endpoint in mine.items():
            for link in endpoint.links:
                target, _, alias = link.partition(":")
                if (alias or target).lower() == wanted:
                    return self.resolve(target, [network_id])
        return self.resolve(wanted, mine)

    def reverse(self, address: str, network_ids: Iterable[str]) -> Endpoint | None:
        for network_id in network_ids:
            owner = self._addresses.get((network_id, address))
            if owner is not None:
                return self._endpoints[owner][network_id]
        return None


def _names_of(endpoint: Endpoint) -> list[str]:
    """Also `name.network`, as Docker has it."""
    names = [name.lower() for name in (*endpoint.dns_names, *endpoint.aliases)]
    return [*names, *(f"{name}.{endpoint.network_name.lower()}" for name in names)]


def _addresses_of(endpoint: Endpoint) -> list[Address]:
    return [ipaddress.ip_address(text) for text in (endpoint.ipv4_address, endpoint.ipv6_address) if text]


addresses_of = _addresses_of
