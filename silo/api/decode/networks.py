"""`POST /networks/create`."""

from __future__ import annotations

import ipaddress

from silo.api.decode.shapes import says_something
from silo.api.decode.wire import IpamPoolBody, NetworkCreateBody
from silo.errors import InvalidRequest, Unsupported
from silo.model.network import NetworkConfig


def parse_network(body: NetworkCreateBody) -> NetworkConfig:
    """Raises InvalidRequest and Unsupported; the engine gives id and time."""
    refused = (
        (body.Ingress, "--ingress"),
        (body.ConfigOnly, "--config-only"),
        (says_something(body.ConfigFrom), "--config-from"),
        (body.EnableIPv4 is False, "--ipv4=false"),
        (body.Scope not in ("", "local"), f"--scope {body.Scope}"),
        (body.IPAM.Driver not in ("", "default"), f"--ipam-driver {body.IPAM.Driver}"),
        (bool(body.IPAM.Options), "--ipam-opt"),
        (any(pool.AuxiliaryAddresses for pool in body.IPAM.Config), "--aux-address"),
    )
    for given, option in refused:
        if given:
            raise Unsupported(f"{option} is not supported")
    if not body.Name:
        raise InvalidRequest("the network's name is missing")
    old, new = _pool(body, version=4), _pool(body, version=6)
    if new.IPRange:
        raise Unsupported("--ip-range of an IPv6 subnet is not supported")
    return NetworkConfig(
        id="",
        name=body.Name,
        driver=body.Driver or "bridge",
        subnet=old.Subnet,
        gateway=old.Gateway,
        ip_range=old.IPRange,
        internal=body.Internal,
        attachable=body.Attachable,
        options=body.Options,
        labels=body.Labels,
        ipv6=body.EnableIPv6,
        ipv6_subnet=new.Subnet,
        ipv6_gateway=new.Gateway,
    )


def _pool(body: NetworkCreateBody, *, version: int) -> IpamPoolBody:
    found = [pool for pool in body.IPAM.Config if _version(pool) == version]
    if len(found) > 1:
        raise Unsupported(f"several IPv{version} subnets of one network (--subnet) are not supported")
    return found[0] if found else IpamPoolBody()


def _version(pool: IpamPoolBody) -> int:
    if not pool.Subnet:
        if pool.Gateway or pool.IPRange:
            raise InvalidRequest("--gateway and --ip-range need a --subnet")
        return 0
    try:
        return ipaddress.ip_network(pool.Subnet, strict=False).version
    except ValueError:
        raise InvalidRequest(f"invalid subnet {pool.Subnet}", hint="such as 172.30.0.0/16") from None
