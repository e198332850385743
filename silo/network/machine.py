"""What the machine around the networks is like: the lock against a second daemon, other firewalls, switches of a bridge."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from silo.errors import Conflict, SiloError
from silo.host.run import run
from silo.model.network import NetworkConfig
from silo.network import sysctls
from silo.network.addresses import link_local_of, mac_of
from silo.network.nftables import Nftables, NftablesError
from silo.network.plumbing import Bridge, Plumbing, interface_of

# Abstract socket names belong to the network namespace, just like the table and the bridges that this guards.
_LOCK_NAME = "\0silo-network"
_FORWARD_CHAINS = (("filter", "FORWARD"), ("filter", "forward"), ("firewalld", "filter_FORWARD"))
_ADMITTED = (("-i", "silo+"), ("-o", "silo+"))
_TIMEOUT_S = 10.0


def take_lock() -> socket.socket:
    """Hold while managing networks; the kernel lets go of it when the process ends. Raises Conflict."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(_LOCK_NAME)
    except OSError as error:
        lock.close()
        raise Conflict(
            "another silod manages the networks of this host",
            hint="stop it, or run this one in a network namespace of its own (unshare --net)",
        ) from error
    return lock


def ensure_bridge(plumbing: Plumbing, network: NetworkConfig, mtu: int) -> None:
    """The network's device with its addresses, and what published ports on loopback need of it."""
    gateway = ipaddress.ip_address(network.gateway)
    addresses = [interface_of(network.gateway, ipaddress.ip_network(network.subnet).prefixlen)]
    if network.ipv6:
        addresses.append(interface_of(network.ipv6_gateway, ipaddress.ip_network(network.ipv6_subnet).prefixlen))
        addresses.append(interface_of(link_local_of(mac_of(gateway)), 64))
    plumbing.ensure_bridge(Bridge(network.bridge, mac_of(gateway), mtu, tuple(addresses)))
    sysctls.ensure(f"ipv4/conf/{network.bridge}/route_localnet", "1")
    if sysctls.read(f"ipv6/conf/{network.bridge}/accept_ra"):
        # a container could make itself the host's IPv6 router
        sysctls.ensure(f"ipv6/conf/{network.bridge}/accept_ra", "0")


def admit_containers(nft: Nftables) -> list[str]:
    """Look for other firewalls that drop what containers forward: an accept of ours does not overrule them.

    Docker sets such a policy and keeps the chain DOCKER-USER for rules like the ones needed: there they are added (our own table
    still decides what may pass). Anywhere else nothing is touched; answers warnings that say what to do.
    """
    warnings = []
    for family, program in (("ip", "iptables"), ("ip6", "ip6tables")):
        if _drops(nft, family, "filter", "FORWARD") and not _admit_through_docker_user(nft, family, program):
            warnings.append(
                f"the {program} chain FORWARD of this host drops forwarded packets, containers may not reach the outside; allow "
                f"them: {program} -I FORWARD -i silo+ -j ACCEPT; {program} -I FORWARD -o silo+ -j ACCEPT"
            )
    for table, chain in _FORWARD_CHAINS:
        if _drops(nft, "inet", table, chain):
            warnings.append(
                f"the nftables chain inet {table} {chain} of this host drops forwarded packets, containers may not reach the "
                f"outside; allow them: nft insert rule inet {table} {chain} iifname 'silo*' accept; "
                f"nft insert rule inet {table} {chain} oifname 'silo*' accept"
            )
    return warnings + _legacy_warnings()


def _drops(nft: Nftables, family: str, table: str, chain: str) -> bool:
    try:
        listing = nft.run(f"list chain {family} {table} {chain}")
    except NftablesError:
        return False  # no such chain on this machine
    return "hook forward" in listing and "policy drop" in listing


def _admit_through_docker_user(nft: Nftables, family: str, program: str) -> bool:
    try:
        nft.run(f"list chain {family} filter DOCKER-USER")
    except NftablesError:
        return False
    try:
        for rule in _ADMITTED:
            if run([program, "-C", "DOCKER-USER", *rule, "-j", "ACCEPT"], check=False, timeout_s=_TIMEOUT_S).status:
                run([program, "-I", "DOCKER-USER", *rule, "-j", "ACCEPT"], timeout_s=_TIMEOUT_S)
    except SiloError:
        return False
    return True


def withdraw_admission(nft: Nftables) -> None:
    """Take our rules out of DOCKER-USER again, where they are."""
    for family, program in (("ip", "iptables"), ("ip6", "ip6tables")):
        try:
            nft.run(f"list chain {family} filter DOCKER-USER")
        except NftablesError:
            continue
        for rule in _ADMITTED:
            run([program, "-D", "DOCKER-USER", *rule, "-j", "ACCEPT"], check=False, timeout_s=_TIMEOUT_S)


def _legacy_warnings() -> list[str]:
    try:
        tables = Path("/proc/thread-self/net/ip_tables_names").read_text().split()
    except OSError:
        return []
    if "filter" not in tables:
        return []
    try:
        policy = run(["iptables-legacy", "-S", "FORWARD"], timeout_s=_TIMEOUT_S).stdout.decode(errors="replace")
    except SiloError as error:
        return [
            f"this host has legacy iptables rules that cannot be read ({error.brief}): they may drop containers' packets"
        ]
    if "-P FORWARD DROP" not in policy:
        return []
    return [
        "the legacy iptables chain FORWARD of this host drops forwarded packets, containers may not reach the outside; allow "
        "them: iptables-legacy -I FORWARD -i silo+ -j ACCEPT; iptables-legacy -I FORWARD -o silo+ -j ACCEPT"
    ]
