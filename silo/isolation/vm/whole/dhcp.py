"""DHCP for one guest: a system that somebody else has installed asks for its address like that, and knows no other way.

Messages only, pure; silo/isolation/vm/disk_network.py carries them. The guest is the only client, so there is nothing to remember:
whoever asks gets the one address, for ever. Sources: RFC 2131, RFC 2132; RFC 3397 for search domains is left out, option 15 does.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass

SERVER_MAC = bytes.fromhex("0253494c4f01")
_ETHERNET_BYTES, _IP_BYTES, _UDP_BYTES, _BOOTP_BYTES = 14, 20, 8, 236
_COOKIE = bytes.fromhex("63825363")
_IPV4, _UDP, _SERVER_PORT, _CLIENT_PORT = 0x0800, 17, 67, 68
_BROADCAST_FLAG = 0x8000
_BROADCAST = b"\xff\xff\xff\xff"
_FOREVER_S = 0xFFFFFFFF
_LEAST_BOOTP_BYTES = 300


class _Option(enum.IntEnum):
    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVERS = 6
    HOST_NAME = 12
    DOMAIN = 15
    MTU = 26
    ASKED_ADDRESS = 50
    LEASE_S = 51
    KIND = 53
    SERVER = 54
    END = 255


class _Kind(enum.IntEnum):
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Lease:
    """What the guest shall have. `gateway` may be missing (an internal network)."""

    address: ipaddress.IPv4Interface
    gateway: ipaddress.IPv4Address | None = None
    name_servers: tuple[ipaddress.IPv4Address, ...] = ()
    domain: str = ""
    hostname: str = ""
    mtu: int = 1500

    @property
    def server(self) -> ipaddress.IPv4Address:
        """Whom the answers come from: nobody, as far as the network is concerned."""
        return self.gateway or self.address.network.network_address + 1


@dataclass(frozen=True, slots=True)
class _Request:
    """What a client says; checked to be whole and nothing else."""

    transaction: bytes
    flags: int
    own_address: bytes
    hardware: bytes
    kind: int
    options: dict[int, bytes]


def build_answer(untrusted_frame: bytes, lease: Lease) -> bytes | None:
    """The Ethernet frame that answers this one; None for what is no question of a client's, or not for us."""
    request = _parse(untrusted_frame)
    if request is None:
        return None
    match request.kind:
        case _Kind.DISCOVER:
            kind = _Kind.OFFER
        case _Kind.REQUEST:
            server = request.options.get(_Option.SERVER)
            if server is not None and server != lease.server.packed:
                return None
            asked = request.options.get(_Option.ASKED_ADDRESS, request.own_address)
            kind = _Kind.ACK if asked == lease.address.ip.packed else _Kind.NAK
        case _Kind.INFORM:
            kind = _Kind.ACK
        case _:
            return None
    return _build_frame(request, _build_message(request, kind, lease), kind, lease)


def _parse(untrusted_frame: bytes) -> _Request | None:
    message = _bootp_of(untrusted_frame)
    if message is None or len(message) < _BOOTP_BYTES + len(_COOKIE):
        return None
    operation, hardware_kind, hardware_bytes, _, transaction, _, flags, own = struct.unpack_from("!BBBB4sHH4s", message)
    if (operation, hardware_kind, hardware_bytes) != (1, 1, 6) or message[_BOOTP_BYTES:][:4] != _COOKIE:
        return None
    options = _parse_options(message[_BOOTP_BYTES + len(_COOKIE) :])
    kind = options.get(_Option.KIND, b"")
    if len(kind) != 1:
        return None
    return _Request(transaction, flags, own, message[28:34], kind[0], options)


def _bootp_of(untrusted_frame: bytes) -> bytes | None:
    """What a whole, unfragmented UDP datagram to a DHCP server carries."""
    if len(untrusted_frame) < _ETHERNET_BYTES + _IP_BYTES + _UDP_BYTES:
        return None
    (protocol,) = struct.unpack_from("!H", untrusted_frame, 12)
    packet = untrusted_frame[_ETHERNET_BYTES:]
    header_bytes = (packet[0] & 0x0F) * 4
    (fragment,) = struct.unpack_from("!H", packet, 6)
    if protocol != _IPV4 or packet[0] >> 4 != 4 or header_bytes < _IP_BYTES or fragment & 0x3FFF or packet[9] != _UDP:
        return None
    datagram = packet[header_bytes:]
    if len(datagram) < _UDP_BYTES:
        return None
    _, port, length, _ = struct.unpack_from("!HHHH", datagram)
    return datagram[_UDP_BYTES:length] if port == _SERVER_PORT and _UDP_BYTES <= length <= len(datagram) else None


def _parse_options(untrusted_text: bytes) -> dict[int, bytes]:
    """As far as they are whole."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(untrusted_text) and untrusted_text[at] != _Option.END:
        if untrusted_text[at] == _Option.PAD:
            at += 1
            continue
        if at + 2 > len(untrusted_text) or at + 2 + untrusted_text[at + 1] > len(untrusted_text):
            break
        code, length = untrusted_text[at : at + 2]
        found.setdefault(code, untrusted_text[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def _build_message(request: _Request, kind: _Kind, lease: Lease) -> bytes:
    given = b"\0\0\0\0" if kind is _Kind.NAK or request.kind == _Kind.INFORM else lease.address.ip.packed
    own = b"\0\0\0\0" if kind is _Kind.NAK else request.own_address
    head = struct.pack("!BBBB4sHH", 2, 1, 6, 0, request.transaction, 0, request.flags)
    addresses = own + given + b"\0\0\0\0" + b"\0\0\0\0"
    message = head + addresses + request.hardware.ljust(16, b"\0") + bytes(192) + _COOKIE
    options = [(_Option.KIND, bytes((kind,))), (_Option.SERVER, lease.server.packed)]
    if kind is not _Kind.NAK:
        options += _lease_options(lease, lasting=request.kind != _Kind.INFORM)
    for code, value in options:
        message += bytes((code, len(value))) + value
    return (message + bytes((_Option.END,))).ljust(_LEAST_BOOTP_BYTES, b"\0")


def _lease_options(lease: Lease, *, lasting: bool) -> list[tuple[_Option, bytes]]:
    options = [(_Option.LEASE_S, struct.pack("!I", _FOREVER_S))] if lasting else []
    options.append((_Option.SUBNET_MASK, lease.address.netmask.packed))
    if lease.gateway is not None:
        options.append((_Option.ROUTER, lease.gateway.packed))
    if lease.name_servers:
        options.append((_Option.NAME_SERVERS, b"".join(server.packed for server in lease.name_servers[:8])))
    for code, text in ((_Option.HOST_NAME, lease.hostname), (_Option.DOMAIN, lease.domain)):
        if text:
            options.append((code, text.encode("ascii", "ignore")[:255]))
    options.append((_Option.MTU, struct.pack("!H", lease.mtu)))
    return options


def _build_frame(request: _Request, message: bytes, kind: _Kind, lease: Lease) -> bytes:
    """A client without an address hears what is sent to its card; one that cannot says so by the flag."""
    broadcast = bool(request.flags & _BROADCAST_FLAG) or kind is _Kind.NAK
    target = lease.address.ip.packed if request.kind != _Kind.INFORM else request.own_address
    mac, target = (b"\xff" * 6, _BROADCAST) if broadcast else (request.hardware, target)
    # no checksum: UDP over IPv4 may do without
    datagram = struct.pack("!HHHH", _SERVER_PORT, _CLIENT_PORT, _UDP_BYTES + len(message), 0) + message
    fields = (0x45, 0, _IP_BYTES + len(datagram), 0, 0, 64, _UDP)
    packed = struct.pack("!BBHHHBB", *fields)
    ends = lease.server.packed + target
    checksum = struct.pack("!H", _checksum(packed + b"\0\0" + ends))
    return mac + SERVER_MAC + struct.pack("!H", _IPV4) + packed + checksum + ends + datagram


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
