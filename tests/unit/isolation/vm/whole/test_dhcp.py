"""What a DHCP client's frames are answered with, and what is no question."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import struct

from silo.isolation.vm.whole.dhcp import SERVER_MAC, Lease, build_answer

MAC = bytes.fromhex("021122334455")
LEASE = Lease(
    address=ipaddress.IPv4Interface("172.17.0.5/16"),
    gateway=ipaddress.IPv4Address("172.17.0.1"),
    name_servers=(ipaddress.IPv4Address("172.17.0.1"),),
    domain="example.org",
    hostname="box",
    mtu=1400,
)


def ask(
    kind: int, *options: tuple[int, bytes], own: bytes = bytes(4), flags: int = 0, port: int = 67, tail: bytes = b""
) -> bytes:
    message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, b"abcd", 0, flags) + own + bytes(12) + MAC.ljust(16, b"\0")
    message += bytes(192) + bytes.fromhex("63825363") + bytes((53, 1, kind))
    for code, value in options:
        message += bytes((0, code, len(value))) + value
    message += b"\xff"
    datagram = struct.pack("!HHHH", 68, port, 8 + len(message), 0) + message
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return b"\xff" * 6 + MAC + b"\x08\x00" + packet + datagram + tail


def read(frame: bytes | None) -> tuple[bytes, bytes, dict[int, bytes]]:
    """(the frame's target, the address given, options); the headers are whole."""
    assert frame is not None and frame[6:12] == SERVER_MAC
    header = frame[14:34]
    assert sum(struct.unpack("!10H", header)) % 0xFFFF == 0
    assert struct.unpack_from("!HHH", frame, 34) == (67, 68, len(frame) - 34)
    message = frame[42:]
    assert message[4:8] == b"abcd" and message[28:34] == MAC
    options, at = {}, 240
    while message[at] != 255:
        options[message[at]] = message[at + 2 : at + 2 + message[at + 1]]
        at += 2 + message[at + 1]
    return frame[:6], message[16:20], options


def test_offer_and_acknowledgement() -> None:
    target, address, options = read(build_answer(ask(1), LEASE))
    assert (target, address) == (MAC, LEASE.address.ip.packed)
    gateway = bytes((172, 17, 0, 1))
    assert options == {
        53: b"\x02",
        54: gateway,
        51: b"\xff" * 4,
        1: bytes((255, 255, 0, 0)),
        3: gateway,
        6: gateway,
        12: b"box",
        15: b"example.org",
        26: struct.pack("!H", 1400),
    }
    wanted = ((50, address), (54, gateway))
    target, address, options = read(build_answer(ask(3, *wanted, flags=0x8000, tail=bytes(20)), LEASE))
    assert (target, address, options[53]) == (b"\xff" * 6, LEASE.address.ip.packed, b"\x05")


def test_another_address_is_denied_and_another_server_left_alone() -> None:
    target, address, options = read(build_answer(ask(3, (50, bytes((10, 0, 0, 9)))), LEASE))
    assert (target, address, set(options)) == (b"\xff" * 6, bytes(4), {53, 54}) and options[53] == b"\x06"
    assert build_answer(ask(3, (50, LEASE.address.ip.packed), (54, bytes((10, 0, 0, 1)))), LEASE) is None
    assert read(build_answer(ask(3, own=LEASE.address.ip.packed), LEASE))[2][53] == b"\x05"


def test_information_alone_and_a_network_without_a_gateway() -> None:
    own = bytes((172, 17, 0, 77))
    _, address, options = read(build_answer(ask(8, own=own), dataclasses.replace(LEASE, gateway=None)))
    assert address == bytes(4) and 51 not in options and 3 not in options and options[54] == bytes((172, 17, 0, 1))


def test_what_is_no_question() -> None:
    whole = ask(1)
    for frame in (
        b"",
        ask(7),
        ask(4),
        ask(1, port=68),
        whole[:12] + b"\x86\xdd" + whole[14:],
        whole[:20] + b"\x20\x00" + whole[22:],
        whole[:42] + b"\x02" + whole[43:],
        *(whole[:length] for length in range(len(whole) - 1)),
    ):
        assert build_answer(frame, LEASE) is None
    chance = random.Random(5)
    for _ in range(3000):
        mangled = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            mangled[chance.randrange(len(mangled))] = chance.randrange(256)
        build_answer(bytes(mangled[: chance.randrange(len(mangled) + 1)]), LEASE)
