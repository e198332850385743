"""Endpoints and networks in Docker's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from silo.model.container import ContainerRecord
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, PortBinding


def encode_endpoints(record: ContainerRecord, names: Mapping[str, str]) -> dict[str, Any]:
    """NetworkSettings.Networks: live endpoints, else what is asked for. `names`: network id → name."""
    live = {endpoint.network_id: endpoint for endpoint in record.endpoints}
    rows = {}
    for request in record.config.endpoints:
        endpoint = live.get(request.network)
        name = endpoint.network_name if endpoint else names.get(request.network, request.network)
        rows[name] = _endpoint(request, endpoint)
    for endpoint in record.endpoints:
        rows.setdefault(endpoint.network_name, _endpoint(EndpointRequest(network=endpoint.network_id), endpoint))
    if not rows and record.config.network_mode in ("host", "none"):
        rows[record.config.network_mode] = _endpoint(EndpointRequest(network=record.config.network_mode), None)
    return rows


def _endpoint(request: EndpointRequest, endpoint: Endpoint | None) -> dict[str, Any]:
    ipam = None
    if request.ipv4_address or request.ipv6_address:
        ipam = {
            key: value
            for key, value in (("IPv4Address", request.ipv4_address), ("IPv6Address", request.ipv6_address))
            if value
        }
    return {
        "IPAMConfig": ipam,
        "Links": list(request.links) or None,
        "Aliases": list(request.aliases) or None,
        "MacAddress": endpoint.mac_address if endpoint else request.mac_address,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id if endpoint else request.network,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4_address if endpoint else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint else 0,
        "IPv6Gateway": endpoint.ipv6_gateway if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6_address if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix_length if endpoint else 0,
        "DNSNames": list(endpoint.dns_names) or None if endpoint else None,
    }


def encode_port_map(
    ports: tuple[PortBinding, ...], exposed: tuple[str, ...] = (), *, any_address: str = ""
) -> dict[str, Any]:
    """Go's nat.PortMap: `{"80/tcp": [{"HostIp": …, "HostPort": …}]}`; exposed and unpublished ports map to null.

    `any_address` stands for an empty address: HostConfig shows what was asked for, NetworkSettings what is.
    """
    rows: dict[str, Any] = dict.fromkeys(exposed)
    for port in ports:
        key = f"{port.container_port}/{port.protocol}"
        binding = {"HostIp": port.host_ip or any_address, "HostPort": str(port.host_port) if port.host_port else ""}
        rows[key] = [*(rows.get(key) or ()), binding]
    return rows


def encode_network(
    network: NetworkConfig, users: Mapping[str, tuple[str, Endpoint]] | None = None, *, detail: bool = True
) -> dict[str, Any]:
    """One network, as lists and inspect show it."""
    pools: list[dict[str, str]] = []
    if network.subnet:
        pool = {"Subnet": network.subnet, "IPRange": network.ip_range, "Gateway": network.gateway}
        pools.append({key: value for key, value in pool.items() if value})
    if network.ipv6_subnet:
        pool = {"Subnet": network.ipv6_subnet, "Gateway": network.ipv6_gateway}
        pools.append({key: value for key, value in pool.items() if value})
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "null" if network.driver == "none" else network.driver,
        "EnableIPv4": True,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }
    if detail and users:
        shown["Containers"] = {
            container_id: {
                "Name": name,
                "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": f"{endpoint.ipv4_address}/{endpoint.prefix_length}" if endpoint.ipv4_address else "",
                "IPv6Address": f"{endpoint.ipv6_address}/{endpoint.ipv6_prefix_length}"
                if endpoint.ipv6_address
                else "",
            }
            for container_id, (name, endpoint) in users.items()
        }
    return shown
