"""Interfaces, addresses and routes of the guest by rtnetlink(7): one socket, one batch an interface, no program started."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from silo.guest.failures import Refused

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR, _RTM_NEWROUTE = 16, 18, 20, 21, 22, 24
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE, _NLM_F_DUMP = 1, 4, 0x100, 0x400, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_F_NODAD = 1, 2, 4, 8, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _RTN_UNICAST = 254, 3, 0, 253, 1
_IFF_UP = 1
_RECEIVE_BYTES = 1 << 17

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


def configure(interfaces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each entry: `name` or `find_mac`; `mac`, `mtu`, `addresses` ("10.0.0.2/24"), `routes` ({destination, gateway}).

    The loopback interface comes up as well. Answers name and index of each entry's interface.
    """
    with _Netlink() as link:
        known = link.links()
        answer = []
        link.ask("bring up lo", _RTM_NEWLINK, 0, _LINK.pack(0, 0, 0, known["lo"][0], _IFF_UP, _IFF_UP))
        for entry in interfaces:
            name, index, mac = _find(known, entry)
            _configure_one(link, index, mac, entry)
            answer.append({"name": name, "index": index})
        return answer


def _find(known: dict[str, tuple[int, str]], entry: dict[str, Any]) -> tuple[str, int, str]:
    wanted = str(entry.get("find_mac", "")).lower()
    for name, (index, mac) in known.items():
        if name == entry.get("name") or (wanted and mac == wanted):
            return name, index, mac
    raise Refused("not_found", f"there is no interface {entry.get('name') or wanted}")


def _configure_one(link: _Netlink, index: int, its_mac: str, entry: dict[str, Any]) -> None:
    mac = entry.get("mac")
    if mac and mac.lower() != its_mac:
        # a driver may want it down for that
        body = _LINK.pack(0, 0, 0, index, 0, _IFF_UP) + _attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        link.ask(f"set the MAC address {mac}", _RTM_NEWLINK, 0, body)
    if entry.get("down"):
        for body in link.addresses(index):
            link.ask("remove an address", _RTM_DELADDR, 0, body)
        link.ask("take the interface down", _RTM_NEWLINK, 0, _LINK.pack(0, 0, 0, index, 0, _IFF_UP))
        return
    body = _LINK.pack(0, 0, 0, index, _IFF_UP, _IFF_UP)
    if entry.get("mtu"):
        body += _attribute(_IFLA_MTU, struct.pack("=I", int(entry["mtu"])))
    link.ask("bring the interface up", _RTM_NEWLINK, 0, body)
    for address in entry.get("addresses", []):
        link.ask(f"add the address {address}", _RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, _address(address, index))
    for route in entry.get("routes", []):
        body = _route(str(route["destination"]), str(route.get("gateway", "")), index)
        link.ask(f"add the route {route}", _RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, body)


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _pack(text: str) -> tuple[int, bytes, int]:
    """(family, packed address, prefix length)"""
    address, _, prefix = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    length = int(prefix) if prefix else len(packed) * 8
    if not 0 <= length <= len(packed) * 8:
        raise ValueError(f"{text}: no such prefix length")
    return family, packed, length


def _address(text: str, index: int) -> bytes:
    family, packed, length = _pack(text)
    body = _ADDRESS.pack(family, length, 0, _SCOPE_UNIVERSE, index)
    body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    if family == socket.AF_INET6:
        return body + _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD))
    if length >= 31:
        return body
    broadcast = int.from_bytes(packed, "big") | ((1 << (32 - length)) - 1)
    return body + _attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))


def _route(destination: str, gateway: str, index: int) -> bytes:
    if destination == "default":
        destination = "::/0" if ":" in gateway else "0.0.0.0/0"
    family, packed, length = _pack(destination)
    scope = _SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else _SCOPE_LINK
    body = _ROUTE.pack(family, length, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    if length:
        body += _attribute(_RTA_DST, packed)
    if gateway:
        body += _attribute(_RTA_GATEWAY, socket.inet_pton(family, gateway))
    return body + _attribute(_RTA_OIF, struct.pack("=I", index))


class _Netlink:
    def __enter__(self) -> _Netlink:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)
        self._sequence = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self) -> list[tuple[int, bytes]]:
        data = self._socket.recv(_RECEIVE_BYTES)
        found = []
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                break
            if sequence == self._sequence:
                found.append((kind, data[at + _HEADER.size : at + length]))
            at += -(-length // 4) * 4
        return found

    def ask(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self._send(kind, flags | _NLM_F_ACK, body)
        while True:
            for answer, payload in self._answers():
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, f"cannot {what}: {os.strerror(code)}")
                    return

    def _dump(self, what: str, kind: int, body: bytes) -> Iterator[bytes]:
        self._send(kind, _NLM_F_DUMP, body)
        while True:
            for answer, payload in self._answers():
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, f"cannot list the {what}: {os.strerror(code)}")
                yield payload

    def links(self) -> dict[str, tuple[int, str]]:
        """name → (index, MAC address)"""
        found: dict[str, tuple[int, str]] = {}
        for payload in self._dump("interfaces", _RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0, 0)):
            name, index, mac = _parse_link(payload)
            found[name] = (index, mac)
        return found

    def addresses(self, index: int) -> list[bytes]:
        """The messages that describe an interface's addresses, which are also those that name them."""
        found = self._dump("addresses", _RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0))
        return [payload for payload in found if _ADDRESS.unpack_from(payload)[4] == index]


def _parse_link(body: bytes) -> tuple[str, int, str]:
    index = _LINK.unpack_from(body)[3]
    name = mac = ""
    at = _LINK.size
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        if kind == _IFLA_IFNAME:
            name = body[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        elif kind == _IFLA_ADDRESS:
            mac = body[at + 4 : at + length].hex(":")
        at += -(-length // 4) * 4
    return name, index, mac
