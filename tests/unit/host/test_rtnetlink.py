"""Messages as the kernel wants them."""

from __future__ import annotations

import ipaddress
import socket
import struct

from silo.host import rtnetlink as rt


def test_attributes_are_padded_and_read_back() -> None:
    packed = rt.attribute(3, b"eth0\0") + rt.number(4, 1500) + rt.nested(18, rt.text(1, "veth"))
    assert len(packed) % 4 == 0
    values = dict(rt.attributes(packed, 0))
    assert values[3] == b"eth0\0" and values[4] == struct.pack("=I", 1500)
    assert dict(rt.attributes(values[18], 0)) == {1: b"veth\0"}


def test_truncated_attributes_end_the_reading() -> None:
    assert list(rt.attributes(b"\0\0\0\0\1\2", 0)) == []
    assert list(rt.attributes(b"\x08\0\x01\0", 0)) == [(1, b"")]


def test_link_is_parsed() -> None:
    stats = struct.pack("=8Q", *range(8)) + bytes(100)
    body = rt.link_body(
        rt.text(rt.IFLA_IFNAME, "sv0123456789ab"),
        rt.mac(rt.IFLA_ADDRESS, "02:42:ac:13:00:02"),
        rt.number(rt.IFLA_MTU, 1400),
        rt.number(rt.IFLA_MASTER, 7),
        rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, "veth")),
        rt.attribute(rt.IFLA_STATS64, stats),
        index=9,
        up=True,
    )
    link = rt.parse_link(body)
    assert (link.index, link.name, link.up, link.mtu, link.master, link.kind) == (
        9,
        "sv0123456789ab",
        True,
        1400,
        7,
        "veth",
    )
    assert link.mac_address == "02:42:ac:13:00:02" and link.stats == tuple(range(8))


def test_addresses_and_routes() -> None:
    message = rt.add_address(ipaddress.ip_interface("10.0.0.2/24"), 5)
    family, prefix, _, _, index = struct.unpack_from("=BBBBI", message.body)
    assert (family, prefix, index) == (socket.AF_INET, 24, 5)
    assert dict(rt.attributes(message.body, 8))[rt.IFA_BROADCAST] == bytes([10, 0, 0, 255])
    six = rt.add_address(ipaddress.ip_interface("fd00::2/64"), 5)
    assert dict(rt.attributes(six.body, 8))[rt.IFA_FLAGS] == struct.pack("=I", rt.IFA_F_NODAD)
    route = rt.add_default_route(ipaddress.ip_address("10.0.0.1"), 5)
    assert dict(rt.attributes(route.body, 12)) == {
        rt.RTA_GATEWAY: bytes([10, 0, 0, 1]),
        rt.RTA_OIF: struct.pack("=I", 5),
    }


def test_kernel_answers_dumps() -> None:
    with rt.NetlinkSocket() as netlink:
        loopback = next(link for link in netlink.links() if link.name == "lo")
        assert loopback.index == 1
        assert netlink.find_link("lo") is not None and netlink.find_link("no-such-device") is None
        assert all(isinstance(route.device, int) for route in netlink.routes())


def test_refusals_say_what_was_meant() -> None:
    with rt.NetlinkSocket() as netlink:
        (error,) = netlink.send([rt.delete_link("no-such-device")])
        assert error is not None and "delete the device no-such-device" in str(error)
