"""Devices: bridges, veth pairs, what is inside a sandbox's network namespace. Everything here blocks: call it from a thread.

One `Plumbing` belongs to one thread at a time. A veth pair is made by one message (host end a port of the bridge, other end born
inside the sandbox); lo, addresses and the default route follow as one batch through a socket into the sandbox.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import Conflict, HostError
from silo.host import rtnetlink as rt
from silo.network import sysctls

HOST_INTERFACE_PREFIX = "sv"
DEFAULT_MTU = 1500
_IFINFO_ZERO = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Plug:
    """One interface to make in a sandbox."""

    host_interface: str
    interface: str
    bridge: str
    mac_address: str
    mtu: int
    addresses: tuple[rt.Interface, ...]
    gateways: tuple[rt.Address, ...]
    """Default routes to set; empty when another interface has them or the network is internal."""
    isolated: bool = False
    """The bridge passes nothing between isolated ports."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge device that shall be there."""

    name: str
    mac_address: str
    mtu: int
    addresses: tuple[rt.Interface, ...]


class Plumbing:
    """Devices of the network namespace in which this was made."""

    def __init__(self) -> None:
        self._netlink = rt.NetlinkSocket()
        self._bridges: dict[str, int] = {}

    def close(self) -> None:
        self._netlink.close()

    def routes(self) -> list[tuple[rt.Network, str]]:
        """(destination, device) of every route but default ones, and of addresses' own networks."""
        names = {link.index: link.name for link in self._netlink.links()}
        found = [(route.destination, names.get(route.device, "")) for route in self._netlink.routes()]
        found += [(address.network, names.get(index, "")) for index, address in self._netlink.addresses()]
        return [(network, device) for network, device in found if network.prefixlen > 0]

    def outward_mtu(self) -> int:
        """The MTU of the device of the default route: a larger one on a bridge would only be fragmented or lost there."""
        links = {link.index: link.mtu for link in self._netlink.links()}
        mtus = [links.get(route.device, 0) for route in self._netlink.routes() if route.destination.prefixlen == 0]
        return min([mtu for mtu in mtus if mtu >= 1280], default=DEFAULT_MTU)

    def find(self, name: str) -> rt.Link | None:
        return self._netlink.find_link(name)

    def ensure_bridge(self, bridge: Bridge) -> None:
        """Make or mend the device. Raises Conflict when another kind of device has the name or another has the address."""
        link = self._netlink.find_link(bridge.name)
        if link is not None and link.kind != "bridge":
            raise Conflict(f"the device {bridge.name} exists and is not a bridge")
        if link is None:
            self._do(
                rt.create_link(
                    rt.text(rt.IFLA_IFNAME, bridge.name),
                    rt.mac(rt.IFLA_ADDRESS, bridge.mac_address),
                    rt.nested(rt.IFLA_LINKINFO, rt.attribute(rt.IFLA_INFO_KIND, b"bridge")),
                    up=False,
                    about=f"make the bridge {bridge.name}",
                )
            )
            link = self._netlink.find_link(bridge.name)
            if link is None:
                raise HostError(f"the bridge {bridge.name} vanished")
        present = {address for index, address in self._netlink.addresses() if index == link.index}
        missing = [address for address in bridge.addresses if address not in present]
        messages = [rt.add_address(address, link.index) for address in missing]
        # a fixed MTU: else the bridge takes the smallest of its ports
        messages.append(
            rt.change_link(
                rt.number(rt.IFLA_MTU, bridge.mtu),
                rt.without_link_local(),
                index=link.index,
                up=True,
                about=f"bring up the bridge {bridge.name}",
            )
        )
        self._do(*messages)
        self._bridges[bridge.name] = link.index

    def delete(self, names: Iterable[str]) -> None:
        """Delete devices; missing ones are fine. Each waits for the kernel's RCU grace period (about 25 ms)."""
        for name in names:
            self._bridges.pop(name, None)
            (error,) = self._netlink.send([rt.delete_link(name)])
            if error is not None and error.errno not in (errno.ENODEV, errno.ENOENT):
                raise HostError(f"cannot delete the device {name}", details=str(error))

    def missing(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._netlink.find_link(name) is None]

    def container_links(self, bridges: Sequence[str]) -> list[str]:
        """Host ends of veth pairs that are ports of these bridges, by the form of their names."""
        links = self._netlink.links()
        masters = {link.index for link in links if link.name in bridges}
        return [
            link.name
            for link in links
            if link.master in masters and link.name.startswith(HOST_INTERFACE_PREFIX) and len(link.name) == 14
        ]

    def statistics(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """rtnl_link_stats64: rx and tx packets, rx and tx bytes, rx and tx errors, rx and tx dropped."""
        links = [self._netlink.find_link(name) for name in names]
        return {link.name: link.stats for link in links if link is not None}

    def plug(self, netns: Path, plugs: Sequence[Plug]) -> None:
        """Bring up lo and make all interfaces (maybe none), or nothing: what was made is deleted again when one fails."""
        descriptor = _open_namespace(netns)
        made: list[str] = []
        try:
            with rt.in_namespace(descriptor, meanwhile=_set_switches) as inside:
                inside.do(rt.change_link(index=1, up=True, about="bring up lo"))
                for plug in plugs:
                    self._make_pair(plug, descriptor)
                    made.append(plug.host_interface)
                    _furnish(inside, plug)
        except rt.NetlinkError as error:
            self.delete(made)
            raise HostError("cannot plug the container into its network", details=str(error)) from error
        except BaseException:
            self.delete(made)
            raise
        finally:
            os.close(descriptor)

    def _make_pair(self, plug: Plug, netns: int) -> None:
        bridge = self._bridges.get(plug.bridge)
        if bridge is None:
            link = self._netlink.find_link(plug.bridge)
            if link is None:
                raise HostError(
                    f"the bridge {plug.bridge} is gone", hint="restart silod: it makes missing bridges anew"
                )
            bridge = self._bridges[plug.bridge] = link.index
        peer = rt.attribute(
            rt.VETH_INFO_PEER | rt.NLA_F_NESTED,
            _IFINFO_ZERO
            + rt.text(rt.IFLA_IFNAME, plug.interface)
            + rt.mac(rt.IFLA_ADDRESS, plug.mac_address)
            + rt.number(rt.IFLA_MTU, plug.mtu)
            + rt.number(rt.IFLA_NET_NS_FD, netns),
        )
        kind = rt.nested(rt.IFLA_LINKINFO, rt.attribute(rt.IFLA_INFO_KIND, b"veth"), rt.nested(rt.IFLA_INFO_DATA, peer))
        name = rt.text(rt.IFLA_IFNAME, plug.host_interface)
        create = rt.create_link(
            name,
            rt.number(rt.IFLA_MTU, plug.mtu),
            rt.number(rt.IFLA_MASTER, bridge),
            kind,
            up=False,
            about=f"make the interface {plug.interface} on {plug.bridge}",
        )
        # hairpin: a container may come back to itself through its own published port
        settings = rt.port_settings(hairpin=True, isolated=plug.isolated)
        up = rt.change_link(name, settings, rt.without_link_local(), up=True, about=f"bring up {plug.host_interface}")
        created, brought_up = self._netlink.send([create, up])
        if created is not None:
            self._bridges.pop(plug.bridge, None)
            raise created
        if brought_up is not None:
            self.delete([plug.host_interface])
            raise brought_up

    def set_default_routes(self, netns: Path, interface: str, gateways: Sequence[rt.Address]) -> None:
        """Give a running sandbox the default routes that it lacks."""
        with rt.in_namespace(netns) as inside:
            link = inside.find_link(interface)
            if link is None:
                raise HostError(f"the container's interface {interface} is gone")
            for error in inside.send([rt.add_default_route(gateway, link.index) for gateway in gateways]):
                if error is not None and error.errno != errno.EEXIST:
                    raise HostError("cannot set the container's default route", details=str(error))

    def _do(self, *messages: rt.Message) -> None:
        try:
            self._netlink.do(*messages)
        except rt.NetlinkError as error:
            raise HostError("cannot set up a network device", details=str(error)) from error


def _furnish(inside: rt.NetlinkSocket, plug: Plug) -> None:
    link = inside.find_link(plug.interface)
    if link is None:
        raise HostError(f"the interface {plug.interface} is missing in the container's network namespace")
    inside.do(
        rt.change_link(rt.without_link_local(), index=link.index, up=True, about=f"bring up {plug.interface}"),
        *(rt.add_address(address, link.index) for address in plug.addresses),
        *(rt.add_default_route(gateway, link.index) for gateway in plug.gateways),
    )


def _set_switches() -> None:
    """Before interfaces are made: a neighbour could make itself the container's IPv6 router (CVE-2020-13401). As on Docker
    anybody may ping and listen at ports below 1024; what was set already, by --sysctl, stays."""
    if sysctls.read("ipv6/conf/default/accept_ra") not in ("", "0"):
        sysctls.write("ipv6/conf/default/accept_ra", "0")
    if sysctls.read("ipv4/ping_group_range").split() == ["1", "0"]:
        sysctls.write("ipv4/ping_group_range", "0 2147483647")
    if sysctls.read("ipv4/ip_unprivileged_port_start") == "1024":
        sysctls.write("ipv4/ip_unprivileged_port_start", "0")


def _open_namespace(netns: Path) -> int:
    try:
        return os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("the container's network namespace is gone", details=f"{netns}: {error.strerror}") from error


def namespace_identity(netns: Path) -> tuple[int, int]:
    """(device, inode): the same for every path to one namespace."""
    try:
        status = netns.stat()
    except OSError as error:
        raise HostError("the container's network namespace is gone", details=f"{netns}: {error.strerror}") from error
    return status.st_dev, status.st_ino


def interface_of(address: str, prefix_length: int) -> rt.Interface:
    return ipaddress.ip_interface(f"{address}/{prefix_length}")
