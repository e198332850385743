"""Addresses: which subnet a new network gets, and which address of it a container gets. Pure; no I/O.

Addresses are given out in turn (the next above the last one), not lowest first: an address comes back late, so that connections
and caches of its former owner have ended.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from silo.errors import Conflict, InvalidRequest, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Docker's own pools, so that users' firewalls and habits fit; 172.17 is left to a Docker on the same machine.
_POOLS = (
    *(f"172.{second}.0.0/16" for second in range(18, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)
# A range of its own when a machine's routes cover all private ones, e.g. 10/8, 172.16/12 and 192.168/16 through a VPN.
_LAST_RESORT = tuple(f"100.{second}.0.0/16" for second in range(100, 116))


def candidate_subnets() -> Iterator[ipaddress.IPv4Network]:
    """Subnets for new networks, the preferred ones first."""
    for pool in (*_POOLS, *_LAST_RESORT):
        yield ipaddress.IPv4Network(pool)


def choose_subnet(taken: Iterable[Network], preferred: str = "") -> ipaddress.IPv4Network:
    """The first candidate that overlaps nothing in `taken`. Raises Unavailable."""
    used = [network for network in taken if isinstance(network, ipaddress.IPv4Network) and network.prefixlen > 0]
    first = [ipaddress.IPv4Network(preferred)] if preferred else []
    for candidate in (*first, *candidate_subnets()):
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise Unavailable("every subnet for new networks is in use on this host", hint="give one with --subnet")


def mac_of(address: Address) -> str:
    """A locally administered MAC made from the address: neighbours' caches stay right when an address is reused."""
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def link_local_of(mac_address: str) -> str:
    """The IPv6 link-local address of a MAC (RFC 4291, modified EUI-64). Neighbours are found from link-local addresses only;
    the kernel's own would be unusable for a second (duplicate detection)."""
    octets = bytes.fromhex(mac_address.replace(":", ""))
    interface_id = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface_id))


class AddressPool:
    """The addresses of one subnet; `reserved` ones (gateway) are never given out."""

    def __init__(self, subnet: Network, *, ip_range: Network | None = None, reserved: Iterable[Address] = ()) -> None:
        self.subnet = subnet
        space = ip_range if ip_range is not None else subnet
        self._first, self._last = int(space.network_address), int(space.broadcast_address)
        self._class = ipaddress.IPv4Address if subnet.version == 4 else ipaddress.IPv6Address
        self._never = {int(subnet.network_address), *(int(address) for address in reserved)}
        if subnet.version == 4:
            self._never.add(int(subnet.broadcast_address))
        self._owners: dict[int, str] = {}
        self._next = self._first

    def owner(self, address: Address) -> str | None:
        return self._owners.get(int(address))

    def take(self, owner: str) -> Address:
        """The next free address. Raises Unavailable when there is none."""
        size = self._last - self._first + 1
        # one more try than addresses that could be in the way is enough, however large the subnet
        for step in range(min(size, len(self._owners) + len(self._never) + 1)):
            value = self._first + (self._next - self._first + step) % size
            if value not in self._never and value not in self._owners:
                self._owners[value] = owner
                self._next = value + 1
                return self._class(value)
        raise Unavailable(f"no free address is left in {self.subnet}")

    def claim(self, address: Address, owner: str) -> None:
        """Take this very address. Raises InvalidRequest (not in the subnet, reserved), Conflict (in use)."""
        if address not in self.subnet:
            raise InvalidRequest(f"the address {address} is not in the network's subnet {self.subnet}")
        value = int(address)
        if value in self._never:
            raise InvalidRequest(f"the address {address} is the network's own (gateway, network or broadcast address)")
        holder = self._owners.get(value)
        if holder is not None and holder != owner:
            raise Conflict(f"the address {address} is already in use", details=f"by container {holder[:12]}")
        self._owners[value] = owner

    def give_back(self, address: Address, owner: str) -> None:
        """Idempotent; another's address is left alone."""
        if self._owners.get(int(address)) == owner:
            del self._owners[int(address)]
