"""From a sandbox's network interfaces to the guest's, on the host's side.

The network namespace of a VM's jail gets the interfaces that any container gets (eth0, …, with addresses and routes, made by
silo.network). Each of them becomes a port of a small bridge there, whose other port is a tap device that QEMU holds; the guest
takes over its MAC address, its addresses and its routes. What stays in the namespace answers nobody: the interface has
another MAC address, the bridge has none and answers no ARP.

Blocking functions, for threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

import msgspec

from silo.errors import HostError
from silo.host import rtnetlink as rt

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """As the guest shall have it; `gateways` are default routes."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()

    def request(self, find_mac: str) -> dict[str, object]:
        """For the agent's `network`."""
        routes = [{"destination": "default", "gateway": gateway} for gateway in self.gateways]
        return {
            "find_mac": find_mac,
            "mac": self.mac,
            "mtu": self.mtu,
            "addresses": list(self.addresses),
            "routes": routes,
        }


def list_interfaces(netns: Path) -> tuple[Interface, ...]:
    """Those that a network has plugged in, in the order of their names. Raises HostError."""
    with rt.in_namespace(netns) as inside:
        links = [link for link in inside.links() if link.kind == "veth"]
        addresses, routes = inside.addresses(), inside.routes()
    found = []
    for link in sorted(links, key=lambda link: (len(link.name), link.name)):
        own = [str(address) for index, address in addresses if index == link.index and not address.ip.is_link_local]
        gateways = [
            str(route.gateway)
            for route in routes
            if route.device == link.index and route.destination.prefixlen == 0 and route.gateway
        ]
        found.append(
            Interface(
                name=link.name, mac=link.mac_address, mtu=link.mtu, addresses=tuple(own), gateways=tuple(gateways)
            )
        )
    return tuple(found)


def make_tap(netns: Path, interface: Interface) -> int:
    """A descriptor for QEMU: frames written to it leave by the interface, and what arrives there is read from it.

    Raises HostError; the tap and the bridge's use end with the descriptor and the namespace.
    """
    taps: list[int] = []
    tap_name, bridge_name = f"t-{interface.name}"[:15], f"b-{interface.name}"[:15]
    try:
        with rt.in_namespace(netns, meanwhile=lambda: taps.append(_open_tap(tap_name))) as inside:
            _connect(inside, interface, tap_name, bridge_name)
    except (OSError, HostError) as error:
        for descriptor in taps:
            os.close(descriptor)
        with contextlib.suppress(HostError):
            remove_bridge(netns, interface.name)
        if isinstance(error, HostError):
            raise
        raise HostError("the virtual machine cannot be plugged into its network", details=str(error)) from error
    return taps[0]


def remove_bridge(netns: Path, name: str) -> None:
    """The interface is gone, and the tap with QEMU's descriptor."""
    with rt.in_namespace(netns) as inside:
        inside.send([rt.delete_link(f"b-{name}"[:15])])


def _open_tap(name: str) -> int:
    """It belongs to the network namespace of the thread that opens it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _connect(inside: rt.NetlinkSocket, interface: Interface, tap_name: str, bridge_name: str) -> None:
    kind = rt.nested(rt.IFLA_LINKINFO, rt.attribute(rt.IFLA_INFO_KIND, b"bridge"))
    inside.do(rt.create_link(rt.text(rt.IFLA_IFNAME, bridge_name), kind, up=False, about=f"make {bridge_name}"))
    names = (interface.name, tap_name, bridge_name)
    links = {link.name: link.index for link in inside.links() if link.name in names}
    if len(links) != len(names):
        raise HostError(f"the interface {interface.name} is gone")
    bridge, mtu = links[bridge_name], rt.number(rt.IFLA_MTU, interface.mtu)
    inside.do(
        # the guest has the interface's own address from now on
        rt.change_link(
            rt.mac(rt.IFLA_ADDRESS, other_mac(interface.mac)),
            rt.number(rt.IFLA_MASTER, bridge),
            index=links[interface.name],
            about=f"hand over {interface.name}",
        ),
        rt.change_link(
            mtu,
            rt.number(rt.IFLA_MASTER, bridge),
            rt.without_link_local(),
            index=links[tap_name],
            up=True,
            about=f"bring up {tap_name}",
        ),
        rt.change_link(mtu, rt.without_link_local(), index=bridge, about=f"set up {bridge_name}"),
        # The network's own bridge sends broadcasts back to where they came from (hairpin): the guest would be learned to be there.
        *(
            rt.change_link(rt.forgetful_port(), index=links[name], about=f"set up the port {name}")
            for name in (interface.name, tap_name)
        ),
        rt.silence_link(index=bridge, about=f"bring up {bridge_name}"),
        rt.silence_link(index=links[interface.name], about=f"silence {interface.name}"),
    )


def other_mac(mac: str) -> str:
    """Of an interface whose guest has its own: locally administered, and another one."""
    first, _, rest = mac.partition(":")
    return f"{(int(first, 16) ^ 0x40) | 0x02:02x}:{rest}"
