"""Plug containers into networks and out again: the part of `BridgeNetworks` that concerns one container at a time.

Names and addresses change on the event loop, devices in the worker thread. An address is given out again only after its device
is gone. An interface may be made ahead (`warm`) for a sandbox without a container; whoever connects that sandbox to just the
default network claims it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import Conflict, InvalidRequest
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, NetworkStatistics
from silo.model.runtime import Sandbox
from silo.network.catalog import Catalog
from silo.network.definitions import mtu_of
from silo.network.endpoints import (
    PlannedEndpoint,
    gateways_of,
    is_plain,
    name_endpoint,
    plan_bare_endpoint,
    plan_endpoint,
)
from silo.network.members import Members, addresses_of
from silo.network.plumbing import namespace_identity
from silo.network.worker import Reaper, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Warm:
    """An interface made ahead for a sandbox that has no container yet."""

    sandbox_id: str
    endpoint: Endpoint


class Attachments:
    """Endpoints of containers; belongs to one event loop. `outward_mtu` is what networks without an MTU of their own get."""

    def __init__(
        self, catalog: Catalog, members: Members, worker: Worker, reaper: Reaper, outward_mtu: Callable[[], int]
    ) -> None:
        self._catalog = catalog
        self._members = members
        self._worker = worker
        self._reaper = reaper
        self._outward_mtu = outward_mtu
        self._warm: dict[tuple[int, int], _Warm] = {}
        self._sandboxes: dict[str, Path] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._arriving: Counter[str] = Counter()

    def is_arriving(self, network_id: str) -> bool:
        """A container is being plugged into this network right now."""
        return self._arriving[network_id] > 0

    def warm_interfaces(self) -> frozenset[str]:
        return frozenset(warm.endpoint.host_interface for warm in self._warm.values())

    async def warm(self, sandbox_id: str, netns: Path) -> None:
        network = self._catalog.default()
        planned = self._plan(network, EndpointRequest(network=network.id), sandbox_id, (), planned=[])
        await self._plug(sandbox_id, netns, [planned])
        self._warm[namespace_identity(netns)] = _Warm(sandbox_id, planned.endpoint)

    async def connect(
        self, container_id: str, sandbox: Sandbox, requests: Sequence[EndpointRequest], dns_names: Sequence[str]
    ) -> tuple[Endpoint, ...]:
        networks = [self._catalog.get(request.network) for request in requests]
        self._refuse_twice(container_id, networks)
        with self._arrival(networks):
            claimed = await self._claim_warm(container_id, sandbox, networks, requests)
            planned = self._plan_all(container_id, networks, requests, dns_names, claimed)
            if sandbox.netns is not None:
                await self._plug(container_id, sandbox.netns, planned)
                self._sandboxes[container_id] = sandbox.netns
            for entry in planned:
                self._members.add(container_id, entry.endpoint)
        return tuple(entry.endpoint for entry in planned)

    @contextlib.contextmanager
    def _arrival(self, networks: Sequence[NetworkConfig]) -> Iterator[None]:
        ids = [network.id for network in networks]
        self._arriving.update(ids)
        try:
            yield
        finally:
            self._arriving.subtract(ids)

    def _refuse_twice(self, container_id: str, networks: Sequence[NetworkConfig]) -> None:
        seen = {endpoint.network_id for endpoint in self._members.endpoints(container_id)}
        for network in networks:
            if network.id in seen:
                raise Conflict(f"container {container_id[:12]} is already on network {network.name}")
            seen.add(network.id)
        if len(seen) > 1 and any(self._is_bare(network_id) for network_id in seen):
            raise InvalidRequest("the networks host and none cannot be combined with another network")

    def _is_bare(self, network_id: str) -> bool:
        network = self._catalog.by_id(network_id)
        return network is not None and network.driver != "bridge"

    async def _claim_warm(
        self,
        container_id: str,
        sandbox: Sandbox,
        networks: Sequence[NetworkConfig],
        requests: Sequence[EndpointRequest],
    ) -> Endpoint | None:
        """The interface made ahead, if the first request is for just that; one that does not fit is deleted."""
        if sandbox.netns is None or not self._warm:
            return None
        warm = self._warm.pop(namespace_identity(sandbox.netns), None)
        if warm is None:
            return None
        endpoint = warm.endpoint
        # inode numbers of namespaces are used again, but a veth pair dies with its namespace
        alive = await self._worker.do(lambda: self._worker.plumbing.find(endpoint.host_interface)) is not None
        if alive and networks and networks[0].id == endpoint.network_id and is_plain(requests[0]):
            for address in addresses_of(endpoint):
                self._members.give_back(warm.sandbox_id, endpoint.network_id, [address])
                self._members.pools[endpoint.network_id].v4.claim(address, container_id)
            return endpoint
        await self._reaper.delete([endpoint.host_interface])
        self._members.give_back(warm.sandbox_id, endpoint.network_id, addresses_of(endpoint))
        return None

    def _plan_all(
        self,
        container_id: str,
        networks: Sequence[NetworkConfig],
        requests: Sequence[EndpointRequest],
        dns_names: Sequence[str],
        claimed: Endpoint | None,
    ) -> list[PlannedEndpoint]:
        planned: list[PlannedEndpoint] = []
        try:
            for network, request in zip(networks, requests, strict=True):
                if claimed is not None and not planned:
                    planned.append(PlannedEndpoint(claimed, None))  # first of all: a bad alias must not lose it
                    named = name_endpoint(claimed, request, dns_names)
                    planned[0] = PlannedEndpoint(named, None)
                elif network.driver != "bridge":
                    planned.append(plan_bare_endpoint(network))
                else:
                    planned.append(self._plan(network, request, container_id, dns_names, planned=planned))
        except BaseException:
            self._abandon(container_id, [entry.endpoint for entry in planned])
            raise
        return planned

    def _plan(
        self,
        network: NetworkConfig,
        request: EndpointRequest,
        owner: str,
        dns_names: Sequence[str],
        *,
        planned: Sequence[PlannedEndpoint],
    ) -> PlannedEndpoint:
        present = [*self._members.endpoints(owner), *(entry.endpoint for entry in planned)]
        return plan_endpoint(
            network,
            self._members.pools[network.id],
            request,
            owner=owner,
            taken_interfaces=[endpoint.interface for endpoint in present],
            taken_macs=[endpoint.mac_address for _, endpoint in self._members.on_network(network.id)],
            default_route=not any(endpoint.gateway for endpoint in present),
            mtu=mtu_of(network, self._outward_mtu()),
            dns_names=dns_names,
        )

    async def _plug(self, owner: str, netns: Path, planned: Sequence[PlannedEndpoint]) -> None:
        plugs = [entry.plug for entry in planned if entry.plug is not None]
        claimed = any(entry.endpoint.interface and entry.plug is None for entry in planned)
        try:
            if plugs or not claimed:
                await self._worker.do(lambda: self._worker.plumbing.plug(netns, plugs))
        except BaseException:
            self._abandon(owner, [entry.endpoint for entry in planned])
            raise

    def adopt(self, container_id: str, endpoint: Endpoint) -> str:
        """An endpoint of a container that lived on without us; answers a warning or ""."""
        pools = self._members.pools.get(endpoint.network_id)
        if pools is None and endpoint.ipv4_address:
            return f"container {container_id[:12]} is on a network that is gone: {endpoint.network_name}"
        for address in addresses_of(endpoint):
            pool = pools and (pools.v4 if address.version == 4 else pools.v6)
            if pool:
                with contextlib.suppress(InvalidRequest):  # an address is as it is, whatever the network now says
                    pool.claim(address, container_id)
        self._members.add(container_id, endpoint)
        return ""

    def rename(self, container_id: str, dns_names: Sequence[str]) -> tuple[Endpoint, ...]:
        for endpoint in self._members.endpoints(container_id):
            self._members.remove(container_id, endpoint.network_id)
            self._members.add(container_id, msgspec.structs.replace(endpoint, dns_names=tuple(dns_names)))
        return self._members.endpoints(container_id)

    async def disconnect(self, container_id: str, network: NetworkConfig, sandbox: Sandbox | None) -> None:
        if sandbox is not None and sandbox.netns is not None:
            self._sandboxes[container_id] = sandbox.netns
        endpoint = self._members.remove(container_id, network.id)
        if endpoint is None:
            raise Conflict(f"container {container_id[:12]} is not connected to network {network.name}")
        if endpoint.host_interface:
            await self._reaper.delete([endpoint.host_interface])
        self._members.give_back(container_id, network.id, addresses_of(endpoint))
        await self._replace_default_route(container_id, endpoint)

    async def _replace_default_route(self, container_id: str, gone: Endpoint) -> None:
        heirs = [endpoint for endpoint in self._members.endpoints(container_id) if endpoint.gateway]
        if not gone.gateway or not heirs:
            return
        netns, heir = self._sandboxes.get(container_id), heirs[0]
        if netns is None:
            log.warning("container %s lost its default route: it was started by an earlier silod", container_id[:12])
            return
        await self._worker.do(
            lambda: self._worker.plumbing.set_default_routes(netns, heir.interface, gateways_of(heir))
        )

    def release(self, container_id: str) -> None:
        """Names end now, devices and addresses a moment later (`settle`)."""
        endpoints = self._members.endpoints(container_id)
        for endpoint in endpoints:
            self._members.remove(container_id, endpoint.network_id)
        self._sandboxes.pop(container_id, None)
        for key, warm in list(self._warm.items()):
            if warm.sandbox_id == container_id:
                del self._warm[key]
                endpoints = (*endpoints, warm.endpoint)
        self._abandon(container_id, endpoints)

    def _abandon(self, owner: str, endpoints: Sequence[Endpoint]) -> None:
        """Delete devices aside, then free their addresses."""
        names = [endpoint.host_interface for endpoint in endpoints if endpoint.host_interface]
        if not names:
            return

        async def reap() -> None:
            await self._reaper.reap(names)
            for endpoint in endpoints:
                self._members.give_back(owner, endpoint.network_id, addresses_of(endpoint))

        self._spawn(reap())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("cannot clean up a container's network: %s", task.exception())

    async def settle(self) -> None:
        """Wait until what was released is wholly gone."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def statistics(self, container_id: str) -> tuple[NetworkStatistics, ...]:
        endpoints = [endpoint for endpoint in self._members.endpoints(container_id) if endpoint.host_interface]
        names = [endpoint.host_interface for endpoint in endpoints]
        counters: Mapping[str, tuple[int, ...]] = await self._worker.do(lambda: self._worker.plumbing.statistics(names))
        return tuple(
            _statistics(endpoint.interface, counters[endpoint.host_interface])
            for endpoint in endpoints
            if endpoint.host_interface in counters
        )


def _statistics(interface: str, numbers: tuple[int, ...]) -> NetworkStatistics:
    """The host's end received what the container's end sent."""
    tx_packets, rx_packets, tx_bytes, rx_bytes, tx_errors, rx_errors, tx_dropped, rx_dropped = numbers
    return NetworkStatistics(
        interface=interface,
        rx_bytes=rx_bytes,
        rx_packets=rx_packets,
        rx_errors=rx_errors,
        rx_dropped=rx_dropped,
        tx_bytes=tx_bytes,
        tx_packets=tx_packets,
        tx_errors=tx_errors,
        tx_dropped=tx_dropped,
    )
