"""Look-up by what a user types, and the predefined networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from silo.errors import InvalidRequest, NotFound
from silo.model.network import NetworkConfig
from silo.network.catalog import Catalog


class Rows:
    def __init__(self) -> None:
        self.rows: dict[str, NetworkConfig] = {}

    def get(self, key: str) -> NetworkConfig | None:
        return self.rows.get(key)

    def put(self, key: str, value: NetworkConfig, *, name: str | None = None) -> None:
        assert name == value.name
        self.rows[key] = value

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)

    def items(self) -> Iterator[tuple[str, NetworkConfig]]:
        return iter(self.rows.items())

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def test_predefined_networks_are_made_once() -> None:
    rows = Rows()
    for _ in range(2):
        catalog = Catalog(rows)
        catalog.load()
        catalog.ensure_predefined(bridge_name="silo0", preferred="172.19.0.0/16", host_routes=[])
    drivers = {network.name: network.driver for network in rows.rows.values()}
    assert drivers == {"bridge": "bridge", "host": "host", "none": "null"}
    default = catalog.default()
    assert (default.bridge, default.subnet, default.gateway) == ("silo0", "172.19.0.0/16", "172.19.0.1")


def test_references() -> None:
    rows = Rows()
    catalog = Catalog(rows)
    for network_id, name in (("aa11", "first"), ("aa22", "second"), ("bb33", "aa1")):
        catalog.add(NetworkConfig(id=network_id, name=name))
    assert catalog.get("first").id == "aa11"
    assert catalog.get("aa2").name == "second"
    assert catalog.get("aa1").id == "bb33", "a name goes before a prefix"
    with pytest.raises(InvalidRequest, match="ambiguous"):
        catalog.get("aa")
    for missing in ("", "zz"):
        with pytest.raises(NotFound):
            catalog.get(missing)
