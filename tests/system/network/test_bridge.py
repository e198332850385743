"""Addresses, reachability and isolation on real bridges, in a network namespace of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from silo.errors import Conflict, HostError, InvalidRequest
from silo.model.network import EndpointRequest, NetworkConfig
from silo.model.runtime import Sandbox
from tests.system.network.conftest import HOST_ADDRESS, OUTSIDE_ADDRESS, Scenario, World

pytestmark = pytest.mark.system
Run = Callable[[Scenario], None]


def test_container_reaches_gateway_neighbour_and_outside(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        first, second = await world.join(networks), await world.join(networks)
        endpoint = first.endpoints[0]
        assert (endpoint.interface, endpoint.gateway, endpoint.prefix_length) == ("eth0", "172.19.0.1", 16)
        assert endpoint.ipv4_address != second.address
        world.serve(second, "tcp", 80)
        assert await world.ask("tcp", second.address, 80, first) == f"hello from {first.address}"
        assert await world.ask("tcp", second.address, 80) == "hello from 172.19.0.1"
        world.serve(world.outside, "tcp", 7000)
        assert await world.ask("tcp", OUTSIDE_ADDRESS, 7000, first) == f"hello from {HOST_ADDRESS}"
        shown = world.sh("ip -o link show; ip route", first)
        assert "lo: <LOOPBACK,UP" in shown and "default via 172.19.0.1 dev eth0" in shown
        await networks.close()

    in_private_network(scenario)


def test_release_leaves_nothing(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        container = await world.join(networks)
        host_interface = container.endpoints[0].host_interface
        assert host_interface in world.sh("ip -o link")
        await networks.release(container.id)  # the namespace is still held: the device has to be deleted
        await networks.release(container.id)
        await networks.settle()
        assert host_interface not in world.sh("ip -o link")
        again = world.container()
        request = EndpointRequest(network="bridge", ipv4_address=container.address)
        (endpoint,) = await networks.connect(again.id, again.sandbox, [request], dns_names=[])
        assert endpoint.ipv4_address == container.address
        again.kill()
        await networks.release(again.id)
        await networks.settle()
        assert endpoint.host_interface not in world.sh("ip -o link")
        await networks.destroy()
        assert "silo0" not in world.sh("ip -o link") and "silo" not in world.sh("nft list tables")
        await networks.close()

    in_private_network(scenario)


def test_networks_are_isolated_from_each_other(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="blue"))
        inner = await networks.create(NetworkConfig(id="", name="inner", internal=True))
        blue = await world.join(networks, EndpointRequest(network="blue"))
        other = await world.join(networks)
        hidden = await world.join(networks, EndpointRequest(network="inner"))
        hidden2 = await world.join(networks, EndpointRequest(network="inner"))
        for container in (blue, other, hidden):
            world.serve(container, "tcp", 80)
        assert await world.ask("tcp", other.address, 80, other) == f"hello from {other.address}"
        assert (await world.ask("tcp", other.address, 80, blue)).startswith("failed")
        assert (await world.ask("tcp", blue.address, 80, other)).startswith("failed")
        assert (await world.ask("tcp", hidden.address, 80, blue)).startswith("failed")
        assert await world.ask("tcp", hidden.address, 80, hidden2) == f"hello from {hidden2.address}"
        world.serve(world.outside, "tcp", 7000)
        assert (await world.ask("tcp", OUTSIDE_ADDRESS, 7000, hidden)).startswith("failed")
        assert await world.ask("tcp", OUTSIDE_ADDRESS, 7000, blue) == f"hello from {HOST_ADDRESS}"
        # a stranger who routes to a container's own address is refused, too
        world.sh(f"ip route add 172.16.0.0/12 via {HOST_ADDRESS}", world.outside)
        assert (await world.ask("tcp", blue.address, 80, world.outside)).startswith("failed")
        with pytest.raises(Conflict, match="active endpoints"):
            await networks.remove("inner")
        for container in (hidden, hidden2):
            await networks.release(container.id)
        assert (await networks.remove(inner.id[:12])).name == "inner"
        assert inner.bridge not in world.sh("ip -o link")
        await networks.close()

    in_private_network(scenario)


def test_without_inter_container_communication_neighbours_are_unreachable(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        options = {"com.docker.network.bridge.enable_icc": "false"}
        await networks.create(NetworkConfig(id="", name="quiet", options=options))
        first = await world.join(networks, EndpointRequest(network="quiet"))
        second = await world.join(networks, EndpointRequest(network="quiet"))
        world.serve(second, "tcp", 80)
        assert (await world.ask("tcp", second.address, 80, first)).startswith("failed")
        assert (await world.ask("tcp", second.address, 80)).startswith("hello")
        await networks.close()

    in_private_network(scenario)


def test_running_container_moves_between_networks(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        network = await networks.create(NetworkConfig(id="", name="second", subnet="10.77.0.0/24"))
        container = await world.join(networks)
        request = EndpointRequest(network="second", ipv4_address="10.77.0.9", mac_address="02-aa-bb-cc-dd-01")
        (added,) = await networks.connect(container.id, container.sandbox, [request], dns_names=[])
        assert (added.interface, added.ipv4_address, added.mac_address) == ("eth1", "10.77.0.9", "02:aa:bb:cc:dd:01")
        with pytest.raises(Conflict, match="already on network"):
            await networks.connect(container.id, container.sandbox, [request], dns_names=[])
        await networks.disconnect(container.id, container.endpoints[0].network_id)
        shown = world.sh("ip -o addr; ip route", container)
        assert "eth0" not in shown and "default via 10.77.0.1 dev eth1" in shown
        statistics = await networks.statistics(container.id)
        assert [entry.interface for entry in statistics] == ["eth1"]
        await networks.disconnect(container.id, network.id)
        await networks.remove("second")
        await networks.close()

    in_private_network(scenario)


def test_ipv6_network(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="six", ipv6=True, ipv6_subnet="fd77::/64"))
        first = await world.join(networks, EndpointRequest(network="six", ipv6_address="fd77::99"))
        second = await world.join(networks, EndpointRequest(network="six"))
        world.serve(first, "tcp", 80, ipv6=True)
        assert await world.ask("tcp", "fd77::99", 80, second) == f"hello from {second.endpoints[0].ipv6_address}"
        assert await world.ask("tcp", "fd77::99", 80) == "hello from fd77::1"
        assert "default via fd77::1 dev eth0" in world.sh("ip -6 route", first)
        await networks.close()

    in_private_network(scenario)


def test_refusals_leave_nothing(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        before = world.sh("ip -o link; nft list ruleset")
        container = world.container()
        bad: list[tuple[type[Exception], EndpointRequest]] = [
            (InvalidRequest, EndpointRequest(network="bridge", ipv4_address="10.1.2.3")),
            (InvalidRequest, EndpointRequest(network="bridge", ipv4_address="172.19.0.1")),
            (InvalidRequest, EndpointRequest(network="bridge", ipv4_address="nonsense")),
            (InvalidRequest, EndpointRequest(network="bridge", ipv6_address="fd00::1")),
            (InvalidRequest, EndpointRequest(network="bridge", mac_address="ff:ff:ff:ff:ff:ff")),
            (InvalidRequest, EndpointRequest(network="bridge", aliases=("bad name",))),
        ]
        for kind, request in bad:
            with pytest.raises(kind):
                await networks.connect(container.id, container.sandbox, [request], dns_names=[])
        for name in ("bridge", "host", "none"):
            with pytest.raises(Conflict, match="pre-defined"):
                await networks.remove(name)
        for config in (
            NetworkConfig(id="", name="overlaps", subnet="172.19.4.0/24"),
            NetworkConfig(id="", name="route", subnet="198.51.100.0/25"),
            NetworkConfig(id="", name="bridge"),
            NetworkConfig(id="", name="device", options={"com.docker.network.bridge.name": "up0"}),
        ):
            with pytest.raises(Conflict):
                await networks.create(config)
        gone = world.container()
        gone.kill()
        with pytest.raises(HostError, match="namespace is gone"):
            await networks.connect(
                gone.id,
                Sandbox(id=gone.id, netns=gone.sandbox.netns, user_namespace=False),
                [EndpointRequest(network="bridge")],
                dns_names=[],
            )
        await networks.settle()
        assert world.sh("ip -o link; nft list ruleset") == before
        assert len(networks.all()) == 3
        second = world.networks()
        with pytest.raises(Conflict, match="another silod"):
            await second.open()
        await networks.close()

    in_private_network(scenario)


def test_interface_made_ahead_is_claimed_or_given_up(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="blue", subnet="10.50.0.0/24"))
        plain, choosy, unclaimed = world.container(), world.container(), world.container()
        for number, container in enumerate((plain, choosy, unclaimed)):
            assert container.sandbox.netns is not None
            await networks.warm(f"pool{number}", container.sandbox.netns)
        made = world.sh("ip -4 -o addr show eth0", plain)
        both = [EndpointRequest(network="bridge"), EndpointRequest(network="blue")]
        endpoints = await networks.connect(plain.id, plain.sandbox, both, dns_names=["plain"])
        assert f"inet {endpoints[0].ipv4_address}/16" in made, "the same interface"
        assert [entry.interface for entry in endpoints] == ["eth0", "eth1"]
        assert "inet 10.50.0" in world.sh("ip -4 -o addr show eth1", plain)
        assert "default via 172.19.0.1 dev eth0" in world.sh("ip route", plain)
        (endpoint,) = await networks.connect(choosy.id, choosy.sandbox, [both[1]], dns_names=[])
        shown = world.sh("ip -4 -o addr; ip route", choosy)
        assert endpoint.interface == "eth0" and "172.19." not in shown and "default via 10.50.0.1" in shown
        await networks.release("pool2")
        await networks.release(plain.id)
        await networks.settle()
        assert world.sh("ip -o link | grep -c veth || true; ip -o link | grep -o 'sv[0-9a-f]*'").count("sv") == 1
        await networks.close()

    in_private_network(scenario)


def test_networks_host_and_none(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        alone = world.container()
        (endpoint,) = await networks.connect(alone.id, alone.sandbox, [EndpointRequest(network="none")], dns_names=[])
        assert (endpoint.network_name, endpoint.ipv4_address, endpoint.interface) == ("none", "", "")
        assert "UP" in world.sh("ip -o link show lo", alone) and "eth0" not in world.sh("ip -o link", alone)
        assert networks.resolver_address([endpoint]) is None
        with pytest.raises(InvalidRequest, match="cannot be combined"):
            await networks.connect(alone.id, alone.sandbox, [EndpointRequest(network="bridge")], dns_names=[])
        sandbox = Sandbox(id="0" * 64, netns=None, user_namespace=False)
        (endpoint,) = await networks.connect(sandbox.id, sandbox, [EndpointRequest(network="host")], dns_names=[])
        assert endpoint.network_name == "host"
        await networks.close()

    in_private_network(scenario)


def test_statistics_are_the_containers_view(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        container = await world.join(networks)
        world.sh(
            'ping -q -c 1 -s 1000 172.19.0.1 || python3 -c "import socket; '
            "s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(bytes(1000), ('172.19.0.1', 9))\"",
            container,
        )
        (numbers,) = await networks.statistics(container.id)
        inside = {
            name: int(
                world.sh(
                    f"ip -s -j link show eth0 | python3 -c 'import json,sys; "
                    f'print(json.load(sys.stdin)[0]["stats64"]["{name}"]["bytes"])\'',
                    container,
                )
            )
            for name in ("rx", "tx")
        }
        assert numbers.tx_bytes >= 1000 and (numbers.rx_bytes, numbers.tx_bytes) == (inside["rx"], inside["tx"])
        await networks.close()

    in_private_network(scenario)


def test_subnet_of_the_host_is_avoided(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        world.sh("ip link add corp type bridge && ip addr add 172.19.200.1/24 dev corp && ip link set corp up")
        networks = world.networks()
        await networks.open()
        assert networks.get("bridge").subnet == "172.18.0.0/16"
        created = await networks.create(NetworkConfig(id="", name="next"))
        assert created.subnet == "172.20.0.0/16"
        await networks.close()

    in_private_network(scenario)


def test_forwarding_is_for_containers_only_when_it_was_off(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        world.sh("sysctl -qw net.ipv4.ip_forward=0")
        networks = world.networks()
        await networks.open()
        assert "switched on by Silo" in networks.report()["forwarding"]
        side = world.container()  # another network of the host that was never routed to
        world.sh(
            f"ip link add side0 type veth peer name eth0 netns {side.process.pid} && ip addr add 10.9.0.1/24 dev side0 "
            "&& ip link set side0 up"
        )
        world.sh(
            "ip link set lo up; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.9.0.1",
            side,
        )
        world.sh("ip route add 10.9.0.0/24 via 198.51.100.1", world.outside)
        world.serve(world.outside, "tcp", 7000)
        assert (await world.ask("tcp", OUTSIDE_ADDRESS, 7000, side)).startswith("failed")
        container = await world.join(networks)
        assert (await world.ask("tcp", OUTSIDE_ADDRESS, 7000, container)).startswith("hello")
        world.sh("nft delete chain inet silo forward")
        assert (await world.ask("tcp", OUTSIDE_ADDRESS, 7000, side)).startswith("hello"), "it was our rule that dropped"
        await networks.close()

    in_private_network(scenario)


def test_sandbox_in_a_user_namespace(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        container = world.container("-U")
        (endpoint,) = await networks.connect(
            container.id, container.sandbox, [EndpointRequest(network="bridge")], dns_names=[]
        )
        shown = world.sh("ip -o -4 addr; ip route; cat /proc/sys/net/ipv6/conf/eth0/accept_ra", container)
        assert f"{endpoint.ipv4_address}/16" in shown and "default via 172.19.0.1" in shown
        assert shown.splitlines()[-1] == "0", "no neighbour may become its IPv6 router"
        assert world.sh("cat /proc/sys/net/ipv6/conf/silo0/accept_ra").strip() == "0"
        await networks.close()

    in_private_network(scenario)


def test_changed_settings_of_the_default_network(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        first = world.networks()
        await first.open()
        container = await world.join(first)
        await first.close()
        second = world.networks(default_subnet="10.44.0.0/16", bridge_name="silo1")
        await second.open()
        await second.recover({container.id: container.endpoints}, {})
        assert second.get("bridge").subnet == "172.19.0.0/16"
        assert "10.44.0.0/16 on silo1" in second.report()["warnings"]
        await second.release(container.id)
        await second.close()
        third = world.networks(default_subnet="10.44.0.0/16", bridge_name="silo1")
        await third.open()
        await third.recover({}, {})
        assert "warnings" not in third.report()
        other = await world.join(third)
        assert other.address == "10.44.0.2"
        assert await world.ask("tcp", "10.44.0.1", 53, other) != "failed: TimeoutError"
        links = world.sh("ip -o link")
        assert "silo1" in links and "silo0" not in links
        await third.close()

    in_private_network(scenario)
