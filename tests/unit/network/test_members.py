"""Names and addresses of containers as DNS will see them."""

from __future__ import annotations

from silo.model.network import Endpoint
from silo.network.members import Members


def endpoint(network: str, address: str, *, names: tuple[str, ...] = (), links: tuple[str, ...] = ()) -> Endpoint:
    return Endpoint(
        network_id=network,
        network_name=f"net-{network}",
        endpoint_id=f"{network}-{address}",
        ipv4_address=address,
        prefix_length=24,
        gateway="10.0.0.1",
        mac_address="",
        interface="eth0",
        host_interface="sv0",
        dns_names=names,
        links=links,
    )


def addresses(found: tuple[Endpoint, ...]) -> list[str]:
    return [entry.ipv4_address for entry in found]


def test_names_are_shared_and_end_with_their_container() -> None:
    members = Members()
    members.add("a", endpoint("n", "10.0.0.2", names=("Web", "pool")))
    members.add("b", endpoint("n", "10.0.0.3", names=("pool",)))
    assert addresses(members.resolve("WEB", ["n"])) == ["10.0.0.2"]
    assert addresses(members.resolve("web.net-n", ["n"])) == ["10.0.0.2"]
    assert addresses(members.resolve("pool", ["n"])) == ["10.0.0.2", "10.0.0.3"]
    assert members.container_at("n", "10.0.0.3") == "b"
    members.remove("a", "n")
    assert members.resolve("web", ["n"]) == ()
    assert addresses(members.resolve("pool", ["n"])) == ["10.0.0.3"]
    assert members.containers() == ("b",)
    assert members.remove("a", "n") is None


def test_container_sees_its_own_networks_only() -> None:
    members = Members()
    members.add("a", endpoint("n", "10.0.0.2", names=("a",)))
    members.add("b", endpoint("m", "10.1.0.2", names=("b",)))
    members.add("c", endpoint("n", "10.0.0.3", names=("c",), links=("a:alpha", "b:beta")))
    assert addresses(members.resolve_for("c", "a")) == ["10.0.0.2"]
    assert addresses(members.resolve_for("c", "alpha")) == ["10.0.0.2"]
    assert members.resolve_for("c", "beta") == (), "a link reaches no further than the network"
    assert members.resolve_for("c", "b") == ()
    assert members.resolve_for("a", "alpha") == ()
    found = members.reverse("10.0.0.3", ["m", "n"])
    assert found is not None and found.dns_names == ("c",)
    assert members.reverse("10.0.0.3", ["m"]) is None
