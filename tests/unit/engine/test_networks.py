"""Networks of running containers over fakes: who hears of a change, and what is left of one that fails."""

from __future__ import annotations

from typing import Any

import pytest

from silo.errors import Conflict, GuestError, HostError, Unavailable
from silo.model.container import ContainerRecord
from silo.model.network import EndpointRequest, NetworkConfig
from silo.model.platform import Isolation
from tests.unit.engine.fakes import Bench
from tests.unit.engine.test_lifecycle import create, scenario

OTHER = NetworkConfig(id="c" * 64, name="other")
FAILURES = [
    Unavailable("the guest did not network within 10.0 s"),
    HostError("the virtual machine cannot be plugged into its network"),
    GuestError("the guest refused"),
    Conflict("a container in a virtual machine can be on at most 5 networks"),
]


async def running(bench: Bench, *networks: str) -> str:
    """A container in a virtual machine, on the network bridge and on these."""
    bench.networks.known["other"] = OTHER
    endpoints = tuple(EndpointRequest(network=bench.networks.get(name).id) for name in ("bridge", *networks))
    container = await create(bench, isolation=Isolation.HYPERV, endpoints=endpoints)
    await bench.engine.containers.start(container)
    return container


def hosts(bench: Bench, container: str) -> str:
    return (bench.root / container / "hosts").read_text()


def heard_of(bench: Bench) -> list[str]:
    """What the clients that follow events hear of networks from now on."""
    heard: list[str] = []
    publish = bench.engine.events.publish

    def listen(kind: str, action: str, *rest: Any) -> None:
        if kind == "network":
            heard.append(action)
        publish(kind, action, *rest)

    bench.engine.events.publish = listen  # type: ignore[method-assign]
    return heard


def networks_of(record: ContainerRecord) -> tuple[list[str], list[str]]:
    """By its configuration, and by what it has."""
    return [one.network for one in record.config.endpoints], [one.network_id for one in record.endpoints]


def test_a_runtime_hears_of_changes_to_a_running_containers_networks() -> None:
    async def body(bench: Bench) -> None:
        bench.networks.known["other"] = OTHER
        container = await create(bench, isolation=Isolation.HYPERV)
        await bench.engine.networks.connect("other", container, EndpointRequest(network="other"))
        await bench.engine.networks.disconnect("other", container)
        assert bench.vm_runtime.network_updates == []
        await bench.engine.containers.start(container)
        await bench.engine.networks.connect("other", container, EndpointRequest(network="other"))
        assert bench.vm_runtime.network_updates == [container]
        await bench.engine.networks.disconnect("other", container)
        assert bench.vm_runtime.network_updates == [container] * 2

    scenario(body)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_connection_that_the_runtime_cannot_make_is_taken_back(failure: Exception) -> None:
    async def body(bench: Bench) -> None:
        container = await running(bench)
        before, files = bench.engine.containers.resolve(container), hosts(bench, container)
        heard = heard_of(bench)
        bench.vm_runtime.fail_network_update = failure
        with pytest.raises(type(failure), match=str(failure)):
            await bench.engine.networks.connect("other", container, EndpointRequest(network="other"))
        assert bench.engine.containers.resolve(container) == before == bench.documents.get(container)
        assert bench.networks.disconnected == [(container, OTHER.id)]
        assert bench.vm_runtime.network_updates == [container] * 2, "the guest hears that it is as before"
        assert hosts(bench, container) == files
        assert not bench.engine.networks.containers_on(OTHER.id)
        assert heard == []
        bench.vm_runtime.fail_network_update = None
        await bench.engine.networks.connect("other", container, EndpointRequest(network="other"))
        assert networks_of(bench.engine.containers.resolve(container)) == (["b" * 64, OTHER.id],) * 2
        assert heard == ["connect"] and "10.9.1.2" in hosts(bench, container)

    scenario(body)


def test_a_container_that_ends_meanwhile_has_no_use_for_its_networks() -> None:
    async def body(bench: Bench) -> None:
        container = await running(bench)

        async def end(container_id: str) -> None:
            bench.vm_runtime.end(container_id)
            raise Conflict("it is not running")

        bench.vm_runtime.update_network = end  # type: ignore[method-assign]
        await bench.engine.networks.connect("other", container, EndpointRequest(network="other"))
        assert networks_of(bench.engine.containers.resolve(container))[0] == ["b" * 64, OTHER.id]

    scenario(body)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_what_was_disconnected_is_so_whatever_the_runtime_says(failure: Exception) -> None:
    async def body(bench: Bench) -> None:
        container = await running(bench, "other")
        heard = heard_of(bench)
        bench.vm_runtime.fail_network_update = failure
        with pytest.raises(type(failure), match=str(failure)):
            await bench.engine.networks.disconnect("other", container)
        assert networks_of(bench.engine.containers.resolve(container)) == (["b" * 64],) * 2
        assert bench.networks.disconnected == [(container, OTHER.id)]
        assert heard == ["disconnect"]
        assert "10.9.1.2" not in hosts(bench, container) and "10.9.0.2" in hosts(bench, container)

    scenario(body)
