"""Networks, endpoints and published ports."""

from __future__ import annotations

import msgspec


class PortBinding(msgspec.Struct, frozen=True, kw_only=True):
    """One published port. `host_port` 0 asks for a free one; `protocol` is tcp or udp."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How a container wants to be on one network."""

    network: str
    """Name or id."""
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    links: tuple[str, ...] = ()
    """Legacy `container:alias`."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place on a network, while it runs."""

    network_id: str
    network_name: str
    endpoint_id: str
    ipv4_address: str
    prefix_length: int
    gateway: str
    mac_address: str
    interface: str
    """Inside the container, such as eth0."""
    host_interface: str
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""
    links: tuple[str, ...] = ()
    """Legacy `container:alias`, kept so that names still resolve after the daemon came back."""


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network as created. Drivers: bridge, and the predefined none and host."""

    id: str
    name: str
    driver: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    created: str = ""
    bridge: str = ""
    """The host's bridge device."""
    ipv6: bool = False
    ipv6_subnet: str = ""
    ipv6_gateway: str = ""


class NetworkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one interface of a container."""

    interface: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0
