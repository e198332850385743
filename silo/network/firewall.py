"""The packet filter: one nftables table, `inet silo`, and nothing else on the machine is touched.

The table's rules are fixed; what changes are elements of its sets and maps, so publishing a port is one element. `build_table`
is the whole table as one transaction (delete and make anew: the kernel swaps both at once, running containers never lack it).

    set bridges      our bridge devices                set internal    those without a way out
    set same         bridge . bridge, so that traffic on one bridge passes where br_netfilter shows it to us
    set home4/6      bridge . its subnet: a container that reaches its own bridge through a published port (hairpin)
    set outbound4/6  subnets whose way out is masqueraded
    set resolvers    gateway addresses on which our DNS answers; port 53 of them is never redirected
    set askers       containers' rates of DNS queries: one that floods must not keep the daemon busy
    map published4/6     protocol . host port            → container address . port
    map published4_on/6_on  host address . protocol . host port → container address . port

Rules. guard: nothing on a bridge may send to 127.0.0.0/8 (route_localnet is on there, for published ports on loopback).
forward: into a bridge only answers, published ports and the bridge's own traffic; other bridges and strangers are dropped.
After them, see `Tables.closed_families`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from silo.model.network import NetworkConfig, PortBinding

TABLE = "inet silo"

_SETS = """\
  set bridges { type ifname; }
  set internal { type ifname; }
  set same { type ifname . ifname; }
  set home4 { type ifname . ipv4_addr; flags interval; }
  set home6 { type ifname . ipv6_addr; flags interval; }
  set outbound4 { type ipv4_addr; flags interval; }
  set outbound6 { type ipv6_addr; flags interval; }
  set resolvers { type ipv4_addr; }
  set askers { type ipv4_addr; size 65535; flags dynamic, timeout; timeout 1m; }
  map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published4_on { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map published6_on { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
"""

_CHAINS = """\
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @bridges ip daddr @resolvers udp dport 53 update @askers { ip saddr limit rate over 500/second burst 1000 packets } drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname @bridges ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 return
    fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published4_on
    dnat ip to meta l4proto . th dport map @published4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_on
    dnat ip6 to meta l4proto . th dport map @published6
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "lo" accept
    ip saddr 127.0.0.0/8 oifname @bridges masquerade
    ct status dnat oifname . ip saddr @home4 masquerade
    ct status dnat oifname . ip6 saddr @home6 masquerade
    ip saddr @outbound4 oifname != @bridges masquerade
    ip6 saddr @outbound6 oifname != @bridges masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @bridges jump filter
    oifname @bridges jump filter
CLOSED  }
  chain filter {
    iifname . oifname @same accept
    ct state established,related accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
    accept
  }
"""
_CLOSED = "    ct state established,related accept\n    ct status dnat accept\n"


@dataclass(frozen=True, slots=True)
class Target:
    """A published port with where it leads."""

    binding: PortBinding
    address: str


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything that the table holds."""

    networks: tuple[NetworkConfig, ...] = ()
    targets: tuple[Target, ...] = ()
    closed_families: tuple[str, ...] = ()
    """Families (ipv4, ipv6) that were not forwarded before Silo came: nothing but containers' traffic is."""


def network_elements(network: NetworkConfig) -> list[tuple[str, str]]:
    """(set, element) of a bridge network."""
    device = f'"{network.bridge}"'
    subnets = [(4, network.subnet), (6, network.ipv6_subnet)]
    elements = [("bridges", device), ("same", f"{device} . {device}"), ("resolvers", network.gateway)]
    elements += [(f"home{version}", f"{device} . {subnet}") for version, subnet in subnets if subnet]
    if network.internal:
        elements.append(("internal", device))
    elif network.options.get("com.docker.network.bridge.enable_ip_masquerade", "true").lower() != "false":
        elements += [(f"outbound{version}", subnet) for version, subnet in subnets if subnet]
    return elements


def target_element(target: Target) -> tuple[str, str]:
    """(map, element key and value) of a published port."""
    name, key = target_key(target.binding)
    return name, f"{key} : {target.address} . {target.binding.container_port}"


def target_key(binding: PortBinding) -> tuple[str, str]:
    """(map, key) of a published port."""
    host = ipaddress.ip_address(binding.host_ip or "0.0.0.0")
    if host.is_unspecified:
        return f"published{host.version}", f"{binding.protocol} . {binding.host_port}"
    return f"published{host.version}_on", f"{host} . {binding.protocol} . {binding.host_port}"


def add_elements(elements: Iterable[tuple[str, str]]) -> str:
    return "".join(f"add element {TABLE} {name} {{ {element} }}\n" for name, element in elements)


def delete_elements(elements: Iterable[tuple[str, str]]) -> str:
    return "".join(f"delete element {TABLE} {name} {{ {element} }}\n" for name, element in elements)


def build_table(tables: Tables) -> str:
    """The whole table, as one transaction that replaces whatever is there."""
    elements = [element for network in tables.networks for element in network_elements(network)]
    elements += [target_element(target) for target in tables.targets]
    drops = "".join(f"    meta nfproto {family} drop\n" for family in tables.closed_families)
    closed = _CLOSED + drops if drops else ""
    body = _SETS + _CHAINS.replace("CLOSED", closed)
    return f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}}}\n{add_elements(elements)}"
