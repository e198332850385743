"""The networks that exist: durable rows, the three predefined ones, look-up by what a user types."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from silo.errors import InvalidRequest, NotFound
from silo.model.ids import new_id
from silo.model.network import NetworkConfig
from silo.model.persistence import Documents
from silo.network.addresses import Network
from silo.network.definitions import BRIDGE_NAME, PREDEFINED, complete

_SHORTEST_PREFIX = 1


def timestamp() -> str:
    """Now, as Docker writes it."""
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


class Catalog:
    """Networks by id; every change is in the documents before it is seen."""

    def __init__(self, documents: Documents[NetworkConfig]) -> None:
        self._documents = documents
        self._networks: dict[str, NetworkConfig] = {}

    def load(self) -> None:
        self._networks = dict(self._documents.items())

    def ensure_predefined(
        self, *, bridge_name: str, preferred: str, host_routes: Sequence[tuple[Network, str]]
    ) -> tuple[NetworkConfig, NetworkConfig]:
        """Answers the default network as it is, and as these settings would have it (the same, unless they have changed)."""
        present = {network.name: network for network in self._networks.values()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in present:
                self.add(NetworkConfig(id=new_id(), name=name, driver=driver, created=timestamp()))
        known = present.get("bridge")
        others = [network for network in self.all() if network is not known]
        routes = [entry for entry in host_routes if known is None or entry[1] != known.bridge]
        config = NetworkConfig(
            id=known.id if known else new_id(),
            name="bridge",
            created=known.created if known else timestamp(),
            options={BRIDGE_NAME: bridge_name},
        )
        wanted = complete(config, others, host_routes=routes, preferred=preferred)
        if known is None:
            self.add(wanted)
        return known or wanted, wanted

    def add(self, network: NetworkConfig) -> None:
        self._documents.put(network.id, network, name=network.name)
        self._networks[network.id] = network

    def delete(self, network: NetworkConfig) -> None:
        self._documents.delete(network.id)
        self._networks.pop(network.id, None)

    def all(self) -> tuple[NetworkConfig, ...]:
        return tuple(sorted(self._networks.values(), key=lambda network: (network.created, network.name)))

    def bridges(self) -> tuple[NetworkConfig, ...]:
        return tuple(network for network in self.all() if network.driver == "bridge")

    def by_id(self, network_id: str) -> NetworkConfig | None:
        return self._networks.get(network_id)

    def default(self) -> NetworkConfig:
        return self.get("bridge")

    def get(self, reference: str) -> NetworkConfig:
        """By id, name or unique id prefix, in this order. Raises NotFound, InvalidRequest (ambiguous)."""
        if reference in self._networks:
            return self._networks[reference]
        for network in self._networks.values():
            if network.name == reference:
                return network
        found = [network for key, network in self._networks.items() if key.startswith(reference)]
        if len(reference) < _SHORTEST_PREFIX or not found:
            raise NotFound(f"network {reference[:140]} not found", hint="see `silo network ls`")
        if len(found) > 1:
            names = ", ".join(network.name for network in found)
            raise InvalidRequest(f"network {reference} is ambiguous", details=f"it may be {names}")
        return found[0]


def is_predefined(network: NetworkConfig) -> bool:
    return network.name in PREDEFINED
