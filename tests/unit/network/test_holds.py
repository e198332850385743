"""Reserved ports, on loopback addresses only."""

from __future__ import annotations

import socket

import pytest

from silo.errors import Conflict, InvalidRequest, Unsupported
from silo.model.network import Endpoint, PortBinding
from silo.network.holds import Holds, find_port_owner
from silo.network.publishing import hold_all, normalise, publishing_endpoint
from tests.unit.network.test_members import endpoint


def binding(port: int = 0, host_ip: str = "127.0.0.1", protocol: str = "tcp") -> PortBinding:
    return PortBinding(container_port=80, host_port=port, host_ip=host_ip, protocol=protocol)


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_port_is_chosen_held_and_let_go() -> None:
    holds = Holds(lambda owner: f"the {owner}")
    chosen = holds.hold(binding(), "web")
    assert chosen.host_port and not can_bind(chosen.host_port)
    with pytest.raises(Conflict, match=str(chosen.host_port)) as refusal:
        holds.hold(binding(chosen.host_port), "other")
    assert "container the web" in refusal.value.details
    holds.hold(binding(chosen.host_port, "127.0.0.2"), "other")
    holds.hold(binding(chosen.host_port, protocol="udp"), "other")
    holds.let_go([chosen, chosen])
    assert can_bind(chosen.host_port)


def test_ports_of_other_programs() -> None:
    holds = Holds(str)
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        port = theirs.getsockname()[1]
        with pytest.raises(Conflict, match="already allocated"):
            holds.hold(binding(port), "web")
        assert "already allocated" in holds.adopt(binding(port), "web")
        with pytest.raises(Conflict, match="already allocated"):
            holds.hold(binding(port), "other")


def test_address_of_another_machine() -> None:
    with pytest.raises(InvalidRequest, match="no address of this host"):
        Holds(str).hold(binding(host_ip="203.0.113.77"), "web")


def test_beyond_the_limit_ports_are_only_tried() -> None:
    holds = Holds(str, limit=1)
    first, second = holds.hold(binding(), "a"), holds.hold(binding(), "a")
    assert not can_bind(first.host_port) and can_bind(second.host_port)
    with pytest.raises(Conflict):
        holds.hold(binding(second.host_port), "b")


def test_nobody_owns_a_free_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert find_port_owner("tcp", port) == ""


def test_all_or_none() -> None:
    holds = Holds(str)
    place = endpoint("n", "10.0.0.2")
    taken = holds.hold(binding(), "other").host_port
    with pytest.raises(Conflict):
        hold_all(holds, "web", [binding(), binding(taken)], place, default_host_ip="")
    assert len(holds._sockets) == 1
    (target,) = hold_all(holds, "web", [binding(), binding()], place, default_host_ip="")
    assert target.address == "10.0.0.2" and target.binding.host_port


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (PortBinding(container_port=80, protocol="sctp"), Unsupported),
        (PortBinding(container_port=0), InvalidRequest),
        (PortBinding(container_port=80, host_port=70000), InvalidRequest),
        (PortBinding(container_port=80, host_ip="example.org"), InvalidRequest),
        (PortBinding(container_port=80, host_ip="::"), Unsupported),
    ],
)
def test_refused_bindings(asked: PortBinding, error: type[Exception]) -> None:
    with pytest.raises(error):
        normalise(asked, default_host_ip="", with_ipv6=False)


def test_families() -> None:
    asked = PortBinding(container_port=80)
    assert [b.host_ip for b in normalise(asked, default_host_ip="", with_ipv6=False)] == ["0.0.0.0"]
    assert [b.host_ip for b in normalise(asked, default_host_ip="", with_ipv6=True)] == ["0.0.0.0", "::"]
    assert [b.host_ip for b in normalise(asked, default_host_ip="127.0.0.1", with_ipv6=True)] == ["127.0.0.1"]


def test_ports_lead_to_the_first_reachable_network() -> None:
    inner, outer = endpoint("inner", "10.0.0.2"), endpoint("outer", "10.1.0.2")
    found: Endpoint = publishing_endpoint([inner, outer], lambda network_id: network_id == "inner")
    assert found is outer
    with pytest.raises(InvalidRequest, match="internal"):
        publishing_endpoint([inner], lambda _: True)
