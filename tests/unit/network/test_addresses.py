"""Subnets are chosen around what is taken; addresses come in turn and belong to one owner."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import Conflict, InvalidRequest, Unavailable
from silo.network.addresses import AddressPool, choose_subnet, link_local_of, mac_of

SMALL = ipaddress.ip_network("10.0.0.0/29")
GATEWAY = ipaddress.ip_address("10.0.0.1")


def test_subnet_avoids_what_overlaps() -> None:
    taken = [
        ipaddress.ip_network("172.16.0.0/12"),
        ipaddress.ip_network("192.168.3.0/24"),
        ipaddress.ip_network("::/8"),
    ]
    assert str(choose_subnet(taken)) == "192.168.16.0/20"
    assert str(choose_subnet([], "10.9.0.0/16")) == "10.9.0.0/16"
    assert str(choose_subnet([ipaddress.ip_network("10.9.9.0/24")], "10.9.0.0/16")) == "172.18.0.0/16"


def test_no_subnet_left_is_said() -> None:
    taken = [ipaddress.ip_network(text) for text in ("172.16.0.0/12", "192.168.0.0/16", "100.0.0.0/8")]
    with pytest.raises(Unavailable, match="every subnet"):
        choose_subnet(taken)
    assert choose_subnet([ipaddress.ip_network("0.0.0.0/0")]), "a default route takes nothing"


def test_addresses_come_in_turn_and_come_back_late() -> None:
    pool = AddressPool(SMALL, reserved=[GATEWAY])
    first = pool.take("a")
    pool.give_back(first, "a")
    assert str(first) == "10.0.0.2"
    assert [str(pool.take("b")) for _ in range(5)] == [f"10.0.0.{n}" for n in (3, 4, 5, 6, 2)]
    with pytest.raises(Unavailable, match="no free address"):
        pool.take("c")


def test_claims() -> None:
    pool = AddressPool(SMALL, reserved=[GATEWAY])
    wanted = ipaddress.ip_address("10.0.0.2")
    pool.claim(wanted, "a")
    pool.claim(wanted, "a")
    with pytest.raises(Conflict, match="in use"):
        pool.claim(wanted, "b")
    pool.give_back(wanted, "b")
    assert pool.owner(wanted) == "a"
    assert str(pool.take("c")) == "10.0.0.3"
    for bad in ("10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2"):
        with pytest.raises(InvalidRequest):
            pool.claim(ipaddress.ip_address(bad), "d")


def test_range_within_a_subnet() -> None:
    pool = AddressPool(
        ipaddress.ip_network("10.0.0.0/16"), ip_range=ipaddress.ip_network("10.0.5.0/30"), reserved=[GATEWAY]
    )
    assert [str(pool.take("a")) for _ in range(4)] == [f"10.0.5.{n}" for n in range(4)]
    with pytest.raises(Unavailable):
        pool.take("a")


def test_huge_ipv6_pool_is_no_effort() -> None:
    pool = AddressPool(ipaddress.ip_network("fd00::/64"), reserved=[ipaddress.ip_address("fd00::1")])
    assert [str(pool.take("a")) for _ in range(2)] == ["fd00::2", "fd00::3"]


@given(st.lists(st.booleans(), max_size=60))
def test_no_address_has_two_owners(steps: list[bool]) -> None:
    pool = AddressPool(SMALL, reserved=[GATEWAY])
    held: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for take in steps:
        if take and len(held) < 5:
            address = pool.take("x")
            assert address not in held and address in SMALL and address != GATEWAY
            held.append(address)
        elif held:
            pool.give_back(held.pop(0), "x")


def test_derived_addresses() -> None:
    mac = mac_of(ipaddress.ip_address("172.19.0.2"))
    assert mac == "02:42:ac:13:00:02"
    assert link_local_of(mac) == "fe80::42:acff:fe13:2"
