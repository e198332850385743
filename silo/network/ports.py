"""Published ports of all containers: reservations on the host and elements of the packet filter, changed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import msgspec

from silo.errors import HostError
from silo.model.network import Endpoint, NetworkConfig, PortBinding
from silo.network import firewall
from silo.network.conntrack import forget_udp
from silo.network.definitions import HOST_BINDING
from silo.network.firewall import Tables, Target
from silo.network.holds import Holds
from silo.network.nftables import Nftables, NftablesError
from silo.network.publishing import hold_all, target_of


class PublishedPorts:
    """Every method blocks: use it in the network's worker thread. `build` answers all the rest of the table."""

    def __init__(self, describe_owner: Callable[[str], str], build: Callable[[], Tables]) -> None:
        self._holds = Holds(describe_owner)
        self._build = build
        self._targets: dict[str, tuple[Target, ...]] = {}

    def open(
        self,
        nft: Nftables,
        container_id: str,
        bindings: Sequence[PortBinding],
        endpoint: Endpoint,
        network: NetworkConfig,
    ) -> tuple[PortBinding, ...]:
        targets = hold_all(
            self._holds, container_id, bindings, endpoint, default_host_ip=network.options.get(HOST_BINDING, "")
        )
        before = self._targets.get(container_id, ())
        self._targets[container_id] = before + targets
        try:
            self.run_or_rebuild(nft, firewall.add_elements(map(firewall.target_element, targets)))
        except BaseException:
            self._targets[container_id] = before
            self._holds.let_go(target.binding for target in targets)
            raise
        forget_udp(_udp_ports(targets))
        return tuple(target.binding for target in targets)

    def has(self, container_id: str) -> bool:
        return bool(self._targets.get(container_id))

    def close(self, nft: Nftables, container_id: str) -> None:
        targets = self._targets.pop(container_id, ())
        if not targets:
            return
        self._holds.let_go(target.binding for target in targets)
        self.run_or_rebuild(nft, firewall.delete_elements(map(firewall.target_element, targets)))
        forget_udp(_udp_ports(targets))

    def adopt(
        self, bindings: Mapping[str, Sequence[PortBinding]], endpoints: Mapping[str, Sequence[Endpoint]]
    ) -> list[str]:
        """Ports of containers that live on; the table is not touched. Answers warnings."""
        warnings = []
        for container_id, published in bindings.items():
            reachable = [entry for entry in endpoints.get(container_id, ()) if entry.ipv4_address and entry.gateway]
            if not reachable or not published:
                continue
            targets = tuple(
                target_of(msgspec.structs.replace(binding, host_ip=binding.host_ip or "0.0.0.0"), reachable[0])
                for binding in published
            )
            self._targets[container_id] = targets
            for target in targets:
                warning = self._holds.adopt(target.binding, container_id)
                if warning:
                    warnings.append(f"{warning}; packets still go to container {container_id[:12]}")
        return warnings

    def rebuild(self, nft: Nftables) -> None:
        """Replace the whole table in one transaction."""
        targets = tuple(target for targets in self._targets.values() for target in targets)
        tables = dataclasses.replace(self._build(), targets=targets)
        try:
            nft.run(firewall.build_table(tables))
        except NftablesError as error:
            raise HostError(
                "the packet filter for containers cannot be set up",
                details=error.details,
                hint="Silo needs a kernel with nf_tables, nft_fib, nft_masq and nf_nat",
            ) from error

    def run_or_rebuild(self, nft: Nftables, command: str) -> None:
        """A table that is not as we think (somebody flushed it) is made anew."""
        try:
            nft.run(command)
        except NftablesError:
            self.rebuild(nft)

    def let_go(self) -> None:
        """The daemon ends: reservations end, rules stay."""
        for targets in self._targets.values():
            self._holds.let_go(target.binding for target in targets)


def _udp_ports(targets: Sequence[Target]) -> frozenset[int]:
    return frozenset(target.binding.host_port for target in targets if target.binding.protocol == "udp")
