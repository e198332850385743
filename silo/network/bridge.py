"""`BridgeNetworks`: the port `Networks` by Linux bridges, veth pairs and one nftables table.

    catalog      which networks exist (durable)           members   who is on them (rebuilt by `recover`)
    attachments  containers plugged in and out            ports     published ports
    worker       devices and packet filter, in order      reaper    deletes devices aside
    resolver     DNS on every bridge's gateway address

It works in whatever network namespace the process is in, and one daemon at a time does (an abstract socket is the lock). After
a crash nothing need be done for running containers: devices and rules stay; `recover` rebuilds what is in memory and replaces
the table in one transaction.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from silo.errors import Conflict, HostError, SiloError
from silo.model.ids import new_id
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, NetworkStatistics, PortBinding
from silo.model.persistence import Documents
from silo.model.runtime import Sandbox
from silo.network import firewall, machine
from silo.network.addresses import Network
from silo.network.answers import Answers
from silo.network.attachments import Attachments
from silo.network.catalog import Catalog, is_predefined, timestamp
from silo.network.definitions import complete, mtu_of
from silo.network.firewall import Tables
from silo.network.forwarder import Forwarder
from silo.network.members import Members, make_pools
from silo.network.plumbing import DEFAULT_MTU
from silo.network.ports import PublishedPorts
from silo.network.publishing import publishing_endpoint
from silo.network.resolver import Resolver
from silo.network.sysctls import Forwarding
from silo.network.worker import Reaper, Worker

log = logging.getLogger(__name__)
DEFAULT_SUBNET = "172.19.0.0/16"


class BridgeNetworks:
    """All methods belong to the event loop that called `open`."""

    def __init__(
        self,
        *,
        run_root: Path,
        networks: Documents[NetworkConfig],
        default_subnet: str = DEFAULT_SUBNET,
        bridge_name: str = "silo0",
    ) -> None:
        self._default_subnet = default_subnet
        self._bridge_name = bridge_name
        self._catalog = Catalog(networks)
        self._forwarding = Forwarding(run_root)
        self._members = Members()
        self._worker = Worker()
        self._reaper = Reaper()
        self._outward_mtu = DEFAULT_MTU
        self._attachments = Attachments(
            self._catalog, self._members, self._worker, self._reaper, lambda: self._outward_mtu
        )
        self._ports = PublishedPorts(self._describe_container, self._tables)
        self._resolver = Resolver(Answers(self._members), Forwarder(self._gateways))
        self._changes = asyncio.Lock()
        self._leaving: set[str] = set()
        self._warnings: list[str] = []
        self._lock: socket.socket | None = None

    # -- life of the daemon ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises Conflict (another daemon), HostError (no nftables, no rights)."""
        self._lock = machine.take_lock()
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        await self._worker.open()
        self._catalog.load()
        routes, self._outward_mtu = await self._worker.do(
            lambda: (self._worker.plumbing.routes(), self._worker.plumbing.outward_mtu())
        )
        await self._ensure_default(routes)
        for network in self._catalog.bridges():
            self._members.pools[network.id] = make_pools(network)
            self._warn_of_overlap(network, routes)
        for network in await self._worker.do(self._set_up):
            await self._start_resolver(network)

    async def _ensure_default(self, routes: Sequence[tuple[Network, str]]) -> None:
        """The default network by the settings; when they have changed it is made anew as soon as no container is on it."""
        present, wanted = self._catalog.ensure_predefined(
            bridge_name=self._bridge_name, preferred=self._default_subnet, host_routes=routes
        )
        if (present.subnet, present.bridge) == (wanted.subnet, wanted.bridge):
            return

        def clear() -> bool:
            if self._worker.plumbing.container_links([present.bridge]):
                return False
            self._worker.plumbing.delete([present.bridge])
            self._worker.nft.run(f"add table {firewall.TABLE}\ndelete table {firewall.TABLE}")
            return True

        if await self._worker.do(clear):
            self._catalog.add(wanted)
            return
        self._warnings.append(
            f"the default network keeps {present.subnet} on {present.bridge} while containers are on it; stop them and start "
            f"silod again for {wanted.subnet} on {wanted.bridge}"
        )

    def _set_up(self) -> list[NetworkConfig]:
        """In the worker thread; answers the networks that have their bridge."""
        self._forwarding.enable_ipv4()
        usable = []
        for network in self._catalog.bridges():
            try:
                if network.ipv6:
                    self._forwarding.enable_ipv6()
                machine.ensure_bridge(self._worker.plumbing, network, mtu_of(network, self._outward_mtu))
                usable.append(network)
            except SiloError as error:
                if network.name == "bridge":
                    raise
                self._warnings.append(f"network {network.name} is not usable: {error}")
        # a table that is there serves running containers, until `recover` knows what belongs into it
        if f"table {firewall.TABLE}\n" not in self._worker.nft.run("list tables"):
            self._ports.rebuild(self._worker.nft)
        self._warnings += machine.admit_containers(self._worker.nft)
        return usable

    async def _start_resolver(self, network: NetworkConfig) -> None:
        try:
            await self._resolver.start(network)
        except HostError as error:
            log.warning("%s", error)
            self._warnings.append(str(error))

    def _gateways(self) -> frozenset[str]:
        return frozenset(network.gateway for network in self._catalog.bridges())

    def _tables(self) -> Tables:
        staying = tuple(network for network in self._catalog.bridges() if network.id not in self._leaving)
        return Tables(networks=staying, closed_families=tuple(sorted(self._forwarding.ours)))

    def _warn_of_overlap(self, network: NetworkConfig, routes: Sequence[tuple[Network, str]]) -> None:
        subnet = ipaddress.ip_network(network.subnet)
        for destination, device in routes:
            if destination.version == 4 and device != network.bridge and subnet.overlaps(destination):
                self._warnings.append(
                    f"the subnet {subnet} of network {network.name} overlaps with a route on {device}"
                )
                return

    async def recover(
        self, alive: Mapping[str, tuple[Endpoint, ...]], bindings: Mapping[str, tuple[PortBinding, ...]]
    ) -> None:
        for container_id, endpoints in alive.items():
            warnings = [self._attachments.adopt(container_id, endpoint) for endpoint in endpoints]
            self._warnings += filter(None, warnings)
        living = {container_id: bindings.get(container_id, ()) for container_id in alive}
        keep = {endpoint.host_interface for endpoints in alive.values() for endpoint in endpoints}
        bridges = [network.bridge for network in self._catalog.bridges()]

        def rebuild() -> list[str]:
            self._warnings += self._ports.adopt(living, alive)
            self._ports.rebuild(self._worker.nft)
            return self._worker.plumbing.container_links(bridges)

        left_over = set(await self._worker.do(rebuild)) - keep - self._attachments.warm_interfaces()
        await self._reaper.delete(sorted(left_over))

    async def close(self) -> None:
        """Devices and rules stay: containers go on."""
        await self._attachments.settle()
        await self._resolver.close()
        self._ports.let_go()
        await self._reaper.close()
        await self._worker.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def settle(self) -> None:
        """Wait until what was released is wholly gone."""
        await self._attachments.settle()

    async def destroy(self) -> None:
        """Take everything off the host: table, bridges, interfaces of containers. The networks' rows stay."""
        await self.settle()
        await self._resolver.close()
        bridges = [network.bridge for network in self._catalog.bridges()]

        def clear() -> list[str]:
            self._worker.nft.run(f"add table {firewall.TABLE}\ndelete table {firewall.TABLE}")
            machine.withdraw_admission(self._worker.nft)
            return self._worker.plumbing.container_links(bridges)

        await self._reaper.delete([*await self._worker.do(clear), *bridges])

    def report(self) -> dict[str, str]:
        default = self._catalog.default()
        bridges = self._catalog.bridges()
        served = [network for network in bridges if self._resolver.serves(network.id)]
        facts = {
            "bridge": default.bridge,
            "subnet": default.subnet,
            "firewall": f"nftables, table {firewall.TABLE}",
            "dns": f"{len(served)} of {len(bridges)} networks have a resolver",
            "forwarding": "was on",
        }
        if self._forwarding.ours:
            families = " and ".join(sorted(self._forwarding.ours))
            facts["forwarding"] = f"{families} switched on by Silo; nothing but containers' traffic is forwarded"
        if self._warnings:
            facts["warnings"] = "\n".join(self._warnings)
        return facts

    # -- networks ----------------------------------------------------------------------------------------------------------

    def all(self) -> tuple[NetworkConfig, ...]:
        return self._catalog.all()

    def get(self, reference: str) -> NetworkConfig:
        return self._catalog.get(reference)

    async def create(self, config: NetworkConfig) -> NetworkConfig:
        async with self._changes:
            routes = await self._worker.do(lambda: self._worker.plumbing.routes())
            config = msgspec.structs.replace(config, id=config.id or new_id(), created=config.created or timestamp())
            network = complete(config, self._catalog.all(), host_routes=routes)
            if await self._worker.do(lambda: self._worker.plumbing.find(network.bridge)) is not None:
                raise Conflict(f"a device {network.bridge} exists on this host already")
            self._members.pools[network.id] = make_pools(network)
            try:
                # the row comes first: what a crash leaves half-made is finished or removed by its name
                self._catalog.add(network)
                await self._worker.do(lambda: self._make(network))
            except BaseException:
                await self._unmake(network)
                raise
            await self._start_resolver(network)
            return network

    def _make(self, network: NetworkConfig) -> None:
        """In the worker thread."""
        if network.ipv6:
            self._forwarding.enable_ipv6()
        machine.ensure_bridge(self._worker.plumbing, network, mtu_of(network, self._outward_mtu))
        if network.ipv6:
            self._ports.rebuild(self._worker.nft)  # the rules depend on whether forwarding was off
        else:
            elements = firewall.network_elements(network)
            self._ports.run_or_rebuild(self._worker.nft, firewall.add_elements(elements))

    async def _unmake(self, network: NetworkConfig) -> None:
        def delete() -> None:
            elements = firewall.network_elements(network)
            self._ports.run_or_rebuild(self._worker.nft, firewall.delete_elements(elements))
            self._worker.plumbing.delete([network.bridge])

        await self._resolver.stop(network.id)
        self._leaving.add(network.id)
        try:
            await self._worker.do(delete)
            self._catalog.delete(network)
            self._members.pools.pop(network.id, None)
        finally:
            self._leaving.discard(network.id)

    async def remove(self, reference: str) -> NetworkConfig:
        async with self._changes:
            network = self._catalog.get(reference)
            if is_predefined(network):
                raise Conflict(f"{network.name} is a pre-defined network and cannot be removed")
            users = [self._describe_container(owner) for owner, _ in self._members.on_network(network.id)]
            if users or self._attachments.is_arriving(network.id):
                raise Conflict(
                    f"network {network.name} has active endpoints",
                    details=", ".join(sorted(users)[:10]),
                    hint="stop or disconnect these containers first",
                )
            await self._unmake(network)
            return network

    # -- containers --------------------------------------------------------------------------------------------------------

    async def warm(self, sandbox_id: str, netns: Path) -> None:
        """Make eth0 on the default network ahead, for whichever container gets this sandbox.

        `connect` claims it, or deletes it when another network, address or MAC is wanted; `release(sandbox_id)` undoes it.
        """
        await self._attachments.warm(sandbox_id, netns)

    async def connect(
        self,
        container_id: str,
        sandbox: Sandbox,
        requests: Sequence[EndpointRequest],
        *,
        dns_names: Sequence[str],
    ) -> tuple[Endpoint, ...]:
        return await self._attachments.connect(container_id, sandbox, requests, dns_names)

    async def disconnect(self, container_id: str, network_id: str, *, sandbox: Sandbox | None = None) -> None:
        """With `sandbox` a default route that goes is replaced by another network's, also after a restart of the daemon."""
        await self._attachments.disconnect(container_id, self._catalog.get(network_id), sandbox)

    def rename(self, container_id: str, dns_names: Sequence[str]) -> tuple[Endpoint, ...]:
        """A container's new names at once; answers its endpoints as they are now."""
        return self._attachments.rename(container_id, dns_names)

    async def publish(
        self, container_id: str, bindings: Sequence[PortBinding], endpoints: Sequence[Endpoint]
    ) -> tuple[PortBinding, ...]:
        if not bindings:
            return ()
        endpoint = publishing_endpoint(endpoints, self._is_internal)
        network = self._catalog.get(endpoint.network_id)
        try:
            return await self._worker.do(
                lambda: self._ports.open(self._worker.nft, container_id, bindings, endpoint, network)
            )
        except asyncio.CancelledError:
            await self._close_ports(container_id)
            raise

    def _is_internal(self, network_id: str) -> bool:
        network = self._catalog.by_id(network_id)
        return network is None or network.internal

    async def _close_ports(self, container_id: str) -> None:
        if self._ports.has(container_id):
            await self._worker.do(lambda: self._ports.close(self._worker.nft, container_id))

    async def release(self, container_id: str) -> None:
        """Names and ports are gone on return, devices and addresses a moment later (see `settle`)."""
        self._attachments.release(container_id)
        await self._close_ports(container_id)

    def resolver_address(self, endpoints: Sequence[Endpoint]) -> str | None:
        for endpoint in endpoints:
            network = self._catalog.by_id(endpoint.network_id)
            if network is not None and endpoint.ipv4_address and self._resolver.serves(network.id):
                return network.gateway
        return None

    async def statistics(self, container_id: str) -> tuple[NetworkStatistics, ...]:
        return await self._attachments.statistics(container_id)

    def _describe_container(self, container_id: str) -> str:
        for endpoint in self._members.endpoints(container_id):
            if endpoint.dns_names:
                return f"{endpoint.dns_names[0]} ({container_id[:12]})"
        return container_id[:12]
