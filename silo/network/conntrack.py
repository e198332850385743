"""Make the kernel forget UDP flows through ports that were just published or closed.

A flow keeps the translation of its first packet as long as it sends: a client that never pauses would go on reaching the former
container (or the host) for ever. TCP needs none of this, connections end. Format: nfnetlink_conntrack, linux/netfilter/
nfnetlink_conntrack.h.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Collection, Iterator

from silo.host.rtnetlink import attribute, attributes

log = logging.getLogger(__name__)
_NETLINK_NETFILTER = 12  # Python's socket module has no name for it
_NFNL_SUBSYS_CTNETLINK = 1
_GET, _DELETE = (_NFNL_SUBSYS_CTNETLINK << 8) | 1, (_NFNL_SUBSYS_CTNETLINK << 8) | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_DONE, _ERROR = 3, 2
_TUPLE_ORIGINAL, _TUPLE_PROTOCOL = 1, 2
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")


def forget_udp(ports: Collection[int]) -> int:
    """Delete entries of both families whose original destination port is one of these; answers how many.

    A kernel that cannot do this (no nf_conntrack_netlink) is no error: then such flows end by themselves when they pause.
    """
    if not ports:
        return 0
    try:
        return _forget(ports)
    except OSError as error:
        log.warning("cannot make the kernel forget UDP flows of ports %s: %s", sorted(ports)[:10], error)
        return 0


def _forget(ports: Collection[int]) -> int:
    forgotten = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        for family in (socket.AF_INET, socket.AF_INET6):
            found = [entry for entry in _tuples(netlink, family) if _udp_port(entry) in ports]
            for entry in found:
                _send(netlink, _DELETE, _REQUEST | _ACK, family, attribute(_TUPLE_ORIGINAL | _NESTED, entry))
                netlink.recv(1 << 16)  # gone already is as good
            forgotten += len(found)
    return forgotten


def _send(netlink: socket.socket, kind: int, flags: int, family: int, body: bytes) -> None:
    body = struct.pack("=BBH", family, 0, 0) + body
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)


def _tuples(netlink: socket.socket, family: int) -> Iterator[bytes]:
    """The original direction's tuple of every entry."""
    _send(netlink, _GET, _REQUEST | _DUMP, family, b"")
    while True:
        data = netlink.recv(1 << 17)
        position = 0
        while position + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, position)
            if kind in (_DONE, _ERROR) or length < _HEADER.size:
                return
            body = data[position + _HEADER.size : position + length]
            values = dict(attributes(body, 4))
            if _TUPLE_ORIGINAL in values:
                yield values[_TUPLE_ORIGINAL]
            position += -(-length // 4) * 4


def _udp_port(entry: bytes) -> int | None:
    protocol = dict(attributes(dict(attributes(entry, 0)).get(_TUPLE_PROTOCOL, b""), 0))
    if protocol.get(_PROTOCOL_NUMBER) != bytes([socket.IPPROTO_UDP]):
        return None
    return int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big")
