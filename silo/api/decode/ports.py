"""Published and exposed ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from silo.errors import InvalidRequest, Unsupported
from silo.model.network import PortBinding

MAX_RANGE = 4096


def parse_exposed(untrusted_ports: Mapping[str, Any]) -> tuple[str, ...]:
    """`{"80/tcp": {}, "90-92/udp": {}}` → ("80/tcp", "90/udp", …)."""
    return tuple(f"{number}/{protocol}" for key in untrusted_ports for number, protocol in _container_ports(key))


def parse_bindings(untrusted_bindings: Mapping[str, Any]) -> tuple[PortBinding, ...]:
    """`{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`; an empty host port asks for a free one."""
    return tuple(binding for key, rows in untrusted_bindings.items() for binding in _bindings(key, rows))


def _bindings(key: str, rows: Any) -> Iterator[PortBinding]:
    container_ports = list(_container_ports(key))
    if rows is None:
        return
    if not isinstance(rows, list):
        raise InvalidRequest(f"invalid JSON: Expected `array` - at `$.HostConfig.PortBindings.{key}`")
    for row in rows or [{}]:
        if not isinstance(row, dict):
            raise InvalidRequest(f"invalid JSON: Expected `object` - at `$.HostConfig.PortBindings.{key}`")
        host_ip, host_text = str(row.get("HostIp") or ""), str(row.get("HostPort") or "")
        if host_ip:
            try:
                ipaddress.ip_address(host_ip)
            except ValueError:
                raise InvalidRequest(f"invalid IP address in -p: {host_ip}") from None
        host_ports = _numbers(host_text) if host_text else range(1)
        if host_text and len(host_ports) != len(container_ports):
            raise Unsupported(f"-p {host_text}:{key}: choosing one port of a range is not supported")
        for index, (number, protocol) in enumerate(container_ports):
            yield PortBinding(
                container_port=number,
                protocol=protocol,
                host_ip=host_ip,
                host_port=host_ports[index] if host_text else 0,
            )


def _container_ports(text: str) -> Iterator[tuple[int, str]]:
    numbers, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol == "sctp":
        raise Unsupported(f"port {text}: the protocol sctp is not supported", hint="tcp or udp")
    if protocol not in ("tcp", "udp"):
        raise InvalidRequest(f"invalid proto: {protocol} in port {text}")
    found = _numbers(numbers)
    if found[0] == 0:
        raise InvalidRequest(f"invalid port number in {text}")
    for number in found:
        yield number, protocol


def _numbers(text: str) -> range:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (
        first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and len(first) < 6 and len(last) < 6
    ):
        raise InvalidRequest(f"Invalid port specification: {text!r}")
    start, end = int(first), int(last)
    if not 0 <= start <= end < 65536 or end - start >= MAX_RANGE:
        raise InvalidRequest(f"Invalid port specification: {text!r}", hint="ports are 1 to 65535")
    return range(start, end + 1)
