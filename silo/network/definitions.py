"""What a network may be: checks a user's words and fills in what was left open. Pure; no I/O.

`complete` answers a `NetworkConfig` with subnet, gateway and bridge device set, or raises InvalidRequest (malformed), Conflict
(overlap, name or device in use) or Unsupported (a driver or option that Silo does not have, named).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

import msgspec

from silo.errors import Conflict, InvalidRequest, Unsupported
from silo.model.ids import NAME_PATTERN
from silo.model.network import NetworkConfig
from silo.network.addresses import Network, choose_subnet

PREDEFINED = ("bridge", "host", "none")
DRIVERS = ("bridge", "host", "null")
DEVICE_PATTERN = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$")
_PREFIX = "com.docker.network."
MTU, ICC, HOST_BINDING = f"{_PREFIX}driver.mtu", f"{_PREFIX}bridge.enable_icc", f"{_PREFIX}bridge.host_binding_ipv4"
BRIDGE_NAME, MASQUERADE = f"{_PREFIX}bridge.name", f"{_PREFIX}bridge.enable_ip_masquerade"
INTERFACE_PREFIX = f"{_PREFIX}container_iface_prefix"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SMALLEST_PREFIX_LENGTH, _LARGEST_PREFIX_LENGTH = 8, 30
_MAX_TEXT = 4096


def is_enabled(network: NetworkConfig, option: str) -> bool:
    """A boolean option that is on unless switched off; `complete` has checked its spelling."""
    return _BOOLEANS.get(network.options.get(option, "true").lower(), True)


def mtu_of(network: NetworkConfig, default: int) -> int:
    return int(network.options.get(MTU, "0")) or default


def interface_prefix(network: NetworkConfig) -> str:
    return network.options.get(INTERFACE_PREFIX, "eth")


def complete(
    config: NetworkConfig,
    existing: Sequence[NetworkConfig],
    *,
    host_routes: Iterable[tuple[Network, str]],
    preferred: str = "",
) -> NetworkConfig:
    """The network to make; `host_routes` are (destination, device) of the host, without default routes."""
    _check_name(config, existing)
    _check_driver(config)
    _check_options(config)
    routes = [(network, device) for network, device in host_routes if network.prefixlen > 0]
    taken = [(ipaddress.ip_network(other.subnet), f"network {other.name}") for other in existing if other.subnet]
    taken += [
        (ipaddress.ip_network(other.ipv6_subnet), f"network {other.name}") for other in existing if other.ipv6_subnet
    ]
    taken += [(network, f"a route of this host ({device})") for network, device in routes]
    subnet: Network
    if config.subnet:
        subnet = _parse_subnet(config.subnet, version=4)
        _refuse_overlap(subnet, taken)
    else:
        if config.gateway or config.ip_range:
            raise InvalidRequest("a gateway or an ip-range needs a subnet", hint="give --subnet as well")
        subnet = choose_subnet((network for network, _ in taken), preferred)
    gateway = _gateway(config.gateway, subnet)
    if config.ip_range:
        ip_range = _parse_subnet(config.ip_range, version=4, smallest=32)
        if not ip_range.subnet_of(subnet):  # type: ignore[arg-type]  # both are IPv4
            raise InvalidRequest(f"the ip-range {ip_range} is not inside the subnet {subnet}")
    ipv6_subnet, ipv6_gateway = _complete_ipv6(config, taken)
    return msgspec.structs.replace(
        config,
        driver="bridge",
        subnet=str(subnet),
        gateway=gateway,
        ipv6_subnet=ipv6_subnet,
        ipv6_gateway=ipv6_gateway,
        bridge=_bridge_device(config, existing),
    )


def _check_name(config: NetworkConfig, existing: Sequence[NetworkConfig]) -> None:
    if not NAME_PATTERN.match(config.name) or len(config.name) > 128:
        raise InvalidRequest(
            f"{config.name[:140]!r} is not a network name",
            hint="use letters, digits, _ . - and begin with a letter or digit",
        )
    if config.name in ("default", "container"):
        raise InvalidRequest(f"the network name {config.name} has a meaning of its own")
    if any(other.name == config.name for other in existing):
        raise Conflict(f"network with name {config.name} already exists")


def _check_driver(config: NetworkConfig) -> None:
    if config.driver in ("host", "null"):
        raise AlreadyThere(config.driver)
    if config.driver not in ("", "bridge"):
        raise Unsupported(f"the network driver {config.driver[:64]!r} is not supported", hint="bridge is")


class AlreadyThere(Conflict):
    """A second network of a driver of which there is one."""

    def __init__(self, driver: str) -> None:
        super().__init__(f"only one instance of {driver!r} network is allowed")


def _check_options(config: NetworkConfig) -> None:
    for key, value in config.options.items():
        if len(value) > _MAX_TEXT:
            raise InvalidRequest(f"the value of network option {key[:64]} is too long")
        if key in (MASQUERADE, ICC, f"{_PREFIX}bridge.default_bridge"):
            if value.lower() not in _BOOLEANS:
                raise InvalidRequest(f"network option {key} is true or false, not {value[:64]!r}")
        elif key == MTU:
            if not value.isascii() or not value.isdigit() or not 576 <= int(value[:9]) <= 65535:
                raise InvalidRequest(f"network option {key} is a number from 576 to 65535, not {value[:64]!r}")
            if config.ipv6 and int(value) < 1280:
                raise InvalidRequest("IPv6 needs an MTU of 1280 or more")
        elif key == HOST_BINDING:
            _parse_address(value, f"network option {key}", version=4)
        elif key == BRIDGE_NAME:
            if not DEVICE_PATTERN.match(value):
                raise InvalidRequest(f"{value[:64]!r} is not a device name", hint="at most 15 letters, digits, _ . -")
        elif key == INTERFACE_PREFIX:
            if not re.match(r"^[a-z]{1,10}$", value) or value == "lo":
                raise InvalidRequest(f"{value[:64]!r} is not a prefix for interface names", hint="use a-z, not lo")
        elif key in (f"{_PREFIX}bridge.gateway_mode_ipv4", f"{_PREFIX}bridge.gateway_mode_ipv6") and value == "nat":
            continue
        else:
            raise Unsupported(f"the network option {key[:128]}={value[:64]} is not supported")


def _bridge_device(config: NetworkConfig, existing: Sequence[NetworkConfig]) -> str:
    device = config.options.get(BRIDGE_NAME) or config.bridge or f"silo-{config.id[:10]}"
    if any(other.bridge == device for other in existing):
        raise Conflict(f"the bridge device {device} belongs to another network")
    return device


def _refuse_overlap(subnet: Network, taken: Iterable[tuple[Network, str]]) -> None:
    for network, owner in taken:
        if network.version == subnet.version and subnet.overlaps(network):
            raise Conflict(f"the subnet {subnet} overlaps with {network} of {owner}", hint="choose another --subnet")


def _parse_subnet(text: str, *, version: int, smallest: int = 0) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!r} is not a subnet", details=str(error)[:200]) from error
    if network.version != version:
        raise InvalidRequest(f"{network} is not an IPv{version} subnet")
    longest = smallest or (_LARGEST_PREFIX_LENGTH if version == 4 else 126)
    if not _SMALLEST_PREFIX_LENGTH <= network.prefixlen <= longest:
        raise InvalidRequest(f"the subnet {network} is too large or too small", hint=f"a prefix from /8 to /{longest}")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise InvalidRequest(f"the subnet {network} cannot be used for containers")
    return network


def _parse_address(text: str, what: str, *, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(f"{what}: {text[:64]!r} is not an IP address") from error
    if address.version != version:
        raise InvalidRequest(f"{what}: {address} is not an IPv{version} address")
    return address


def _gateway(text: str, subnet: Network) -> str:
    if not text:
        return str(subnet.network_address + 1)
    address = _parse_address(text, "gateway", version=subnet.version)
    if address not in subnet:
        raise InvalidRequest(f"the gateway {address} is not in the subnet {subnet}")
    if address == subnet.network_address or (subnet.version == 4 and address == subnet.broadcast_address):
        raise InvalidRequest(f"the gateway {address} is the network or broadcast address of {subnet}")
    return str(address)


def _complete_ipv6(config: NetworkConfig, taken: Sequence[tuple[Network, str]]) -> tuple[str, str]:
    if not config.ipv6:
        if config.ipv6_subnet or config.ipv6_gateway:
            raise InvalidRequest("an IPv6 subnet needs IPv6 switched on", hint="add --ipv6")
        return "", ""
    if config.ipv6_subnet:
        subnet = _parse_subnet(config.ipv6_subnet, version=6)
        _refuse_overlap(subnet, taken)
    else:
        # a unique local prefix (RFC 4193) out of the network's random id
        subnet = ipaddress.IPv6Network((b"\xfd" + bytes.fromhex(config.id[:14]) + bytes(8), 64))
        _refuse_overlap(subnet, taken)
    return str(subnet), _gateway(config.ipv6_gateway, subnet)
