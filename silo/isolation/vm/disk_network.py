"""The network card of a disk's machine: plugged into the sandbox's interface, and told its address by DHCP.

The interface is made by silo.network as for any container (wires.py). The machine has one card, with one address from its start.
DHCP is answered by the daemon itself, on the tap in the sandbox's own namespace: it hears one guest and nobody else hears it.
While no daemon lives nobody answers; a lease has no end, so a guest that has one does not ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
from pathlib import Path

from silo.errors import HostError, Unsupported
from silo.host import rtnetlink as rt
from silo.isolation.vm.whole.dhcp import Lease, build_answer
from silo.isolation.vm.whole.guest import WholeGuest
from silo.isolation.vm.wires import Interface, list_interfaces, make_tap, remove_bridge
from silo.model.runtime import ContainerPlan

_ETH_P_ALL, _SO_ATTACH_FILTER, _PACKET_OUTGOING = 0x0003, 26, 4
_FRAME_BYTES = 2048
# linux/filter.h: whole IPv4 datagrams of UDP to port 67, whatever the IP header's length; all else never reaches the daemon
_FILTER = (
    (0x28, 0, 0, 12),
    (0x15, 0, 8, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 0, 1, 67),
    (0x06, 0, 0, _FRAME_BYTES),
    (0x06, 0, 0, 0),
)


class Card:
    """`plugged`: the name of the interface that it is plugged into, "" while there is none."""

    def __init__(self, guest: WholeGuest, plan: ContainerPlan, *, plugged: str = "") -> None:
        self.plugged = plugged
        self._guest = guest
        self._plan = plan
        self._netns = Path(f"/proc/{guest.process.pid}/ns/net")
        self._server: _Server | None = None
        self._turn = asyncio.Lock()

    async def update(self) -> None:
        """The sandbox's interfaces may have changed. Idempotent. Raises HostError, Unavailable, Unsupported."""
        async with self._turn:
            found = await asyncio.to_thread(list_interfaces, self._netns)
            if len(found) > 1:
                raise Unsupported(
                    "a machine that boots a disk has one network card, so it can be on one network only",
                    hint="disconnect it from the other one",
                )
            interface = found[0] if found else None
            if self.plugged and (interface is None or interface.name != self.plugged):
                await self._unplug()
            if interface is None:
                return
            if not self.plugged:
                await self._plug(interface)
            lease = build_lease(interface, self._plan)
            if lease is not None:
                await self._serve(lease)

    async def _plug(self, interface: Interface) -> None:
        tap = await asyncio.to_thread(make_tap, self._netns, interface)
        try:
            await self._guest.plug_network(tap)
        finally:
            os.close(tap)
        self.plugged = interface.name

    async def _unplug(self) -> None:
        self.close()
        name, self.plugged = self.plugged, ""
        await self._guest.unplug_network()
        with contextlib.suppress(HostError):
            await asyncio.to_thread(remove_bridge, self._netns, name)

    async def _serve(self, lease: Lease) -> None:
        if self._server is not None:
            self._server.lease = lease
            return
        connection = await asyncio.to_thread(_open_socket, self._netns, f"t-{self.plugged}"[:15])
        self._server = _Server(connection, lease)

    def close(self) -> None:
        """Let go; the guest keeps its network."""
        if self._server is not None:
            self._server.close()
            self._server = None


class _Server:
    def __init__(self, connection: socket.socket, lease: Lease) -> None:
        self.lease = lease
        self._connection = connection
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)

    def _readable(self) -> None:
        # the tap may be gone with its machine
        with contextlib.suppress(OSError):
            untrusted_frame, origin = self._connection.recvfrom(_FRAME_BYTES)
            # what others send to the guest passes here, too
            if origin[2] == _PACKET_OUTGOING:
                return
            answer = build_answer(untrusted_frame, self.lease)
            if answer is not None:
                self._connection.send(answer)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()


def build_lease(interface: Interface, plan: ContainerPlan) -> Lease | None:
    """None on a network without IPv4. Blocks for a moment: the engine has written resolv.conf for this container."""
    addresses = [ipaddress.ip_interface(text) for text in interface.addresses]
    own = [address for address in addresses if isinstance(address, ipaddress.IPv4Interface)]
    if not own:
        return None
    gateways = _of_version_4(interface.gateways)
    servers, domain = [], ""
    with contextlib.suppress(OSError):
        for line in (plan.directory / "resolv.conf").read_text().splitlines():
            words = line.split()
            if words[:1] == ["nameserver"]:
                servers += words[1:2]
            elif words[:1] == ["search"] and len(words) > 1:
                domain = words[1]
    return Lease(
        address=own[0],
        gateway=gateways[0] if gateways else None,
        name_servers=_of_version_4(servers),
        domain=domain,
        hostname=plan.hostname,
        mtu=interface.mtu,
    )


def _of_version_4(texts: tuple[str, ...] | list[str]) -> tuple[ipaddress.IPv4Address, ...]:
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.IPv4Address(text))
    return tuple(found)


def _open_socket(netns: Path, name: str) -> socket.socket:
    """It hears and speaks for whoever is behind the tap. Raises HostError."""
    made: list[socket.socket] = []

    def make() -> None:
        # bound to nothing yet: not a frame comes in before the filter is there
        made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0))

    rt.in_namespace(netns, meanwhile=make).close()
    connection = made[0]
    try:
        _attach_filter(connection)
        connection.bind((name, _ETH_P_ALL))
    except OSError as error:
        connection.close()
        raise HostError(f"no address can be given out on {name}", details=str(error)) from error
    return connection


def _attach_filter(connection: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _FILTER))
    connection.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), ctypes.addressof(program))
    )
