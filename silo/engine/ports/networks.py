"""Networks of containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, NetworkStatistics, PortBinding
from silo.model.runtime import (
    Sandbox,
)


class Networks(Protocol):
    """Networks of containers."""

    async def open(self) -> None:
        """Probe, make the default network, adopt what is there."""

    async def close(self) -> None: ...
    def report(self) -> dict[str, str]: ...
    def all(self) -> tuple[NetworkConfig, ...]: ...
    def get(self, reference: str) -> NetworkConfig:
        """By name, id or unique id prefix. Raises NotFound."""

    async def create(self, config: NetworkConfig) -> NetworkConfig:
        """Empty subnet, gateway and bridge are chosen. Raises Conflict (name, overlap), InvalidRequest, Unsupported."""

    async def remove(self, reference: str) -> NetworkConfig:
        """Raises Conflict while endpoints are on it or it is predefined."""

    async def connect(
        self,
        container_id: str,
        sandbox: Sandbox,
        requests: Sequence[EndpointRequest],
        *,
        dns_names: Sequence[str],
    ) -> tuple[Endpoint, ...]:
        """Plug a sandbox in, in order (eth0, eth1, …); the first gives the default route. Works on running containers too."""

    async def disconnect(self, container_id: str, network_id: str, *, sandbox: Sandbox | None = None) -> None:
        """`sandbox`, where it runs, so that the default route can move to another endpoint."""

    def rename(self, container_id: str, dns_names: Sequence[str]) -> tuple[Endpoint, ...]:
        """New names on all its networks; answers its endpoints."""

    async def publish(
        self, container_id: str, bindings: Sequence[PortBinding], endpoints: Sequence[Endpoint]
    ) -> tuple[PortBinding, ...]:
        """Open ports on the host; host_port 0 is chosen. Raises Conflict naming the taken port and by whom."""

    async def release(self, container_id: str) -> None:
        """Addresses, names, ports, devices of a container; idempotent."""

    async def recover(
        self, alive: Mapping[str, tuple[Endpoint, ...]], bindings: Mapping[str, tuple[PortBinding, ...]]
    ) -> None:
        """Rebuild addresses, names and published ports of containers that live; forget all others."""

    def resolver_address(self, endpoints: Sequence[Endpoint]) -> str | None:
        """The DNS server to write into resolv.conf; None: use the host's servers."""

    async def statistics(self, container_id: str) -> tuple[NetworkStatistics, ...]: ...
