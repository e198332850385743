"""What a user may ask of a network, and what is filled in."""

from __future__ import annotations

import ipaddress

import pytest

from silo.errors import Conflict, InvalidRequest, Unsupported
from silo.model.network import NetworkConfig
from silo.network.definitions import complete, interface_prefix, is_enabled, mtu_of

ID = "ab" * 32
EXISTING = NetworkConfig(id="cd" * 32, name="there", subnet="10.1.0.0/16", gateway="10.1.0.1", bridge="br-there")
ROUTES = [(ipaddress.ip_network("192.168.7.0/24"), "eth0"), (ipaddress.ip_network("0.0.0.0/0"), "eth0")]


def made(**fields: object) -> NetworkConfig:
    config = NetworkConfig(**({"id": ID, "name": "new"} | fields))  # type: ignore[arg-type]
    return complete(config, [EXISTING], host_routes=ROUTES)


def test_everything_left_open_is_filled_in() -> None:
    network = made()
    assert (network.driver, network.subnet, network.gateway) == ("bridge", "172.18.0.0/16", "172.18.0.1")
    assert network.bridge == "silo-" + ID[:10] and len(network.bridge) == 15


def test_words_of_the_user_are_kept() -> None:
    options = {
        "com.docker.network.bridge.name": "mine0",
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.container_iface_prefix": "net",
        "com.docker.network.bridge.enable_icc": "false",
    }
    network = made(subnet="10.7.0.0/24", gateway="10.7.0.254", ip_range="10.7.0.128/25", options=options)
    assert (network.gateway, network.bridge, network.ip_range) == ("10.7.0.254", "mine0", "10.7.0.128/25")
    assert mtu_of(network, 1500) == 1400 and interface_prefix(network) == "net"
    assert not is_enabled(network, "com.docker.network.bridge.enable_icc")
    assert is_enabled(network, "com.docker.network.bridge.enable_ip_masquerade")


def test_ipv6() -> None:
    network = made(ipv6=True, ipv6_subnet="fd77::/64")
    assert network.ipv6_gateway == "fd77::1"
    chosen = ipaddress.ip_network(made(ipv6=True).ipv6_subnet)
    assert chosen.subnet_of(ipaddress.ip_network("fd00::/8")) and chosen.prefixlen == 64  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"name": "../x"}, InvalidRequest, "not a network name"),
        ({"name": "default"}, InvalidRequest, "meaning of its own"),
        ({"name": "there"}, Conflict, "already exists"),
        ({"driver": "overlay"}, Unsupported, "overlay"),
        ({"driver": "host"}, Conflict, "only one instance"),
        ({"subnet": "10.1.2.0/24"}, Conflict, "network there"),
        ({"subnet": "192.168.0.0/16"}, Conflict, "eth0"),
        ({"subnet": "10.7.0.5/24"}, InvalidRequest, "not a subnet"),
        ({"subnet": "nonsense"}, InvalidRequest, "not a subnet"),
        ({"subnet": "10.7.0.0/31"}, InvalidRequest, "too large or too small"),
        ({"subnet": "fd00::/64"}, InvalidRequest, "not an IPv4 subnet"),
        ({"subnet": "127.5.0.0/16"}, InvalidRequest, "cannot be used"),
        ({"gateway": "10.7.0.1"}, InvalidRequest, "needs a subnet"),
        ({"subnet": "10.7.0.0/24", "gateway": "10.8.0.1"}, InvalidRequest, "not in the subnet"),
        ({"subnet": "10.7.0.0/24", "gateway": "10.7.0.255"}, InvalidRequest, "broadcast"),
        ({"subnet": "10.7.0.0/24", "ip_range": "10.8.0.0/25"}, InvalidRequest, "not inside"),
        ({"ipv6_subnet": "fd00::/64"}, InvalidRequest, "--ipv6"),
        ({"ipv6": True, "ipv6_subnet": "10.0.0.0/8"}, InvalidRequest, "not an IPv6 subnet"),
        ({"options": {"com.docker.network.bridge.name": "much-too-long-name"}}, InvalidRequest, "device name"),
        ({"options": {"com.docker.network.bridge.name": "br-there"}}, Conflict, "belongs to another"),
        ({"options": {"com.docker.network.bridge.name": 'x" drop'}}, InvalidRequest, "device name"),
        ({"options": {"com.docker.network.driver.mtu": "9"}}, InvalidRequest, "576"),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidRequest, "true or false"),
        ({"options": {"com.docker.network.container_iface_prefix": "lo"}}, InvalidRequest, "prefix"),
        (
            {"options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}},
            Unsupported,
            "gateway_mode_ipv4=routed",
        ),
        ({"options": {"parent": "eth0"}}, Unsupported, "parent=eth0"),
    ],
)
def test_refusals(fields: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        made(**fields)
