"""The table's text: one transaction, elements where they belong."""

from __future__ import annotations

from silo.model.network import NetworkConfig, PortBinding
from silo.network.firewall import (
    Tables,
    Target,
    build_table,
    delete_elements,
    network_elements,
    target_element,
    target_key,
)

BLUE = NetworkConfig(id="1", name="blue", subnet="10.7.0.0/24", gateway="10.7.0.1", bridge="silo-blue")


def test_networks_elements() -> None:
    assert network_elements(BLUE) == [
        ("bridges", '"silo-blue"'),
        ("same", '"silo-blue" . "silo-blue"'),
        ("resolvers", "10.7.0.1"),
        ("home4", '"silo-blue" . 10.7.0.0/24'),
        ("outbound4", "10.7.0.0/24"),
    ]


def test_internal_network_has_no_way_out() -> None:
    names = [name for name, _ in network_elements(NetworkConfig(id="1", name="x", subnet="10.7.0.0/24", internal=True))]
    assert "internal" in names and "outbound4" not in names


def test_masquerade_can_be_switched_off() -> None:
    options = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    names = [
        name for name, _ in network_elements(NetworkConfig(id="1", name="x", subnet="10.7.0.0/24", options=options))
    ]
    assert "outbound4" not in names and "internal" not in names


def test_targets_by_address_and_family() -> None:
    anywhere = PortBinding(container_port=80, host_port=8080, host_ip="0.0.0.0")
    assert target_element(Target(anywhere, "10.7.0.2")) == ("published4", "tcp . 8080 : 10.7.0.2 . 80")
    local = PortBinding(container_port=53, host_port=5353, protocol="udp", host_ip="127.0.0.1")
    assert target_key(local) == ("published4_on", "127.0.0.1 . udp . 5353")
    six = PortBinding(container_port=80, host_port=8080, host_ip="::")
    assert target_element(Target(six, "fd00::2")) == ("published6", "tcp . 8080 : fd00::2 . 80")


def test_table_is_replaced_in_one_text() -> None:
    target = Target(PortBinding(container_port=80, host_port=8080, host_ip="0.0.0.0"), "10.7.0.2")
    text = build_table(Tables(networks=(BLUE,), targets=(target,)))
    assert text.startswith("add table inet silo\ndelete table inet silo\ntable inet silo {\n")
    assert "add element inet silo published4 { tcp . 8080 : 10.7.0.2 . 80 }\n" in text
    assert "CLOSED" not in text and "nfproto" not in text
    assert delete_elements([target_key(target.binding)]) == "delete element inet silo published4 { tcp . 8080 }\n"


def test_families_that_were_not_forwarded_stay_closed() -> None:
    text = build_table(Tables(closed_families=("ipv4",)))
    assert "meta nfproto ipv4 drop\n" in text and "ipv6 drop" not in text
    assert text.index("ct status dnat accept\n    meta nfproto") < text.index("chain filter")
