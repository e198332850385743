"""Published ports on real rules: from outside, from the host, from loopback, hairpin; conflicts; after a crash."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import pytest

from silo.errors import Conflict, InvalidRequest, Unsupported
from silo.model.network import EndpointRequest, NetworkConfig, PortBinding
from tests.system.network.conftest import HOST_ADDRESS, OUTSIDE_ADDRESS, Container, Scenario, World

pytestmark = pytest.mark.system
Run = Callable[[Scenario], None]


def port(host_port: int, container_port: int = 80, *, host_ip: str = "", protocol: str = "tcp") -> PortBinding:
    return PortBinding(container_port=container_port, host_port=host_port, host_ip=host_ip, protocol=protocol)


async def reaches(world: World, kind: str, address: str, number: int, where: int | Container | None = None) -> bool:
    return (await world.ask(kind, address, number, where)).startswith("hello")


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_published_port_is_reached_from_everywhere(in_private_network: Run, kind: str) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="blue"))
        server = await world.join(networks, ports=(port(8080, protocol=kind),))
        neighbour = await world.join(networks)
        stranger = await world.join(networks, EndpointRequest(network="blue"))
        world.serve(server, kind, 80)
        assert await world.ask(kind, HOST_ADDRESS, 8080, world.outside) == "hello from 198.51.100.2"
        assert await reaches(world, kind, HOST_ADDRESS, 8080)
        assert await reaches(world, kind, "127.0.0.1", 8080)
        assert await reaches(world, kind, HOST_ADDRESS, 8080, server), "its own published port"
        assert await reaches(world, kind, HOST_ADDRESS, 8080, neighbour), "from the same network"
        assert await reaches(world, kind, HOST_ADDRESS, 8080, stranger), "from another network"
        assert not await reaches(world, kind, server.address, 80, stranger), "the address itself stays isolated"
        await networks.release(server.id)
        assert not await reaches(world, kind, HOST_ADDRESS, 8080, world.outside)
        assert not await reaches(world, kind, "127.0.0.1", 8080)
        await networks.close()

    in_private_network(scenario)


def test_port_on_one_host_address_only(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        local = await world.join(networks, ports=(port(9000, host_ip="127.0.0.1"),))
        public = await world.join(networks, ports=(port(9000, host_ip=HOST_ADDRESS),))
        world.serve(local, "tcp", 80)
        world.serve(public, "tcp", 80)
        assert await reaches(world, "tcp", "127.0.0.1", 9000)
        assert await reaches(world, "tcp", HOST_ADDRESS, 9000, world.outside)
        await networks.release(public.id)
        assert not await reaches(world, "tcp", HOST_ADDRESS, 9000, world.outside)
        assert await reaches(world, "tcp", "127.0.0.1", 9000)
        with pytest.raises(InvalidRequest, match="no address of this host"):
            await networks.publish(local.id, [port(9001, host_ip="203.0.113.9")], local.endpoints)
        with pytest.raises(Unsupported, match="IPv6"):
            await networks.publish(local.id, [port(9001, host_ip="::")], local.endpoints)
        await networks.close()

    in_private_network(scenario)


def test_containers_cannot_reach_the_hosts_loopback(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        container = await world.join(networks)
        world.serve(0, "tcp", 7777)
        assert await reaches(world, "tcp", "127.0.0.1", 7777)
        world.sh(
            "ip route add 127.0.0.99/32 via 172.19.0.1 && ip route del local 127.0.0.0/8 dev lo table local", container
        )
        world.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1", container)
        counters = world.sh("nft insert rule inet silo guard ip daddr 127.0.0.99 counter")
        assert not await reaches(world, "tcp", "127.0.0.99", 7777, container)
        counters = world.sh("nft list chain inet silo guard")
        assert "packets 0" not in counters, "the attempt must have arrived at the guard"
        await networks.close()

    in_private_network(scenario)


def test_free_port_is_chosen_and_taken_ports_are_refused(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        first = await world.join(networks, names=("web",))
        (chosen,) = await networks.publish(first.id, [port(0)], first.endpoints)
        assert chosen.host_port > 1024 and chosen.host_ip == "0.0.0.0"
        second = await world.join(networks)
        with pytest.raises(Conflict, match=rf"already allocated.*{chosen.host_port}") as refusal:
            await networks.publish(second.id, [port(chosen.host_port)], second.endpoints)
        assert "container web" in refusal.value.details
        server = world.serve(0, "tcp", 7070)
        before = world.sh("nft list table inet silo")
        with pytest.raises(Conflict, match="7070") as refusal:
            await networks.publish(second.id, [port(7071), port(7070)], second.endpoints)
        assert f"pid {server.pid}" in refusal.value.details and "python3" in refusal.value.details
        assert world.sh("nft list table inet silo") == before
        with socket.socket() as probe, pytest.raises(OSError):
            probe.bind(("0.0.0.0", chosen.host_port))  # held: no host program gets it
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 7071))  # let go by the failure
        await networks.close()

    in_private_network(scenario)


def test_ports_of_a_container_on_internal_networks_are_refused(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="inner", internal=True))
        container = await world.join(networks, EndpointRequest(network="inner"))
        with pytest.raises(InvalidRequest, match="internal"):
            await networks.publish(container.id, [port(8080)], container.endpoints)
        await networks.close()

    in_private_network(scenario)


def test_everything_is_adopted_after_a_crash(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        living = await world.join(networks, names=("living",))
        bindings = await networks.publish(living.id, [port(8080)], living.endpoints)
        dead = await world.join(networks, ports=(port(8081),))
        world.serve(living, "tcp", 80)
        await networks.close()  # what a crash leaves: devices and rules; sockets and memory are gone
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)

        again = world.networks()
        await again.open()
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside), "before recover, too"
        await again.recover({living.id: living.endpoints}, {living.id: bindings})
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)
        table = world.sh("nft list table inet silo")
        assert "8080" in table and "8081" not in table
        links = world.sh("ip -o link")
        assert living.endpoints[0].host_interface in links and dead.endpoints[0].host_interface not in links
        other = world.container()
        with pytest.raises(Conflict, match="in use"):
            request = EndpointRequest(network="bridge", ipv4_address=living.address)
            await again.connect(other.id, other.sandbox, [request], dns_names=[])
        with pytest.raises(Conflict, match="8080"):
            await again.publish(other.id, [port(8080)], living.endpoints)
        await again.release(living.id)
        assert not await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)
        await again.close()

    in_private_network(scenario)


def test_other_tables_stay_untouched_and_a_dropping_firewall_is_reported(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        world.sh("nft add table ip filter")
        world.sh("nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'")
        before = world.sh("nft list table ip filter")
        networks = world.networks()
        await networks.open()
        assert "drops forwarded packets" in networks.report()["warnings"]
        await networks.destroy()
        await networks.close()
        assert world.sh("nft list table ip filter") == before

    in_private_network(scenario)


def test_ipv6_publishing(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        world.sh("ip addr add 2001:db8::1/64 dev up0 nodad")
        world.sh("ip addr add 2001:db8::2/64 dev eth0 nodad", world.outside)
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="six", ipv6=True))
        server = await world.join(networks, EndpointRequest(network="six"))
        bindings = await networks.publish(server.id, [port(0)], server.endpoints)
        assert [binding.host_ip for binding in bindings] == ["0.0.0.0", "::"]
        assert len({binding.host_port for binding in bindings}) == 1
        world.serve(server, "tcp", 80, ipv6=True)
        number = bindings[0].host_port
        assert await world.ask("tcp", "2001:db8::1", number, world.outside) == "hello from 2001:db8::2"
        assert await reaches(world, "tcp", "2001:db8::1", number, server), "hairpin"
        assert await reaches(world, "tcp", HOST_ADDRESS, number, world.outside)
        world.serve(world.outside, "tcp", 7000, ipv6=True)
        assert await world.ask("tcp", "2001:db8::2", 7000, server) == "hello from 2001:db8::1"
        await networks.close()

    in_private_network(scenario)


def test_docker_user_chain_admits_containers(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        if not world.sh("command -v iptables && iptables --version | grep nf_tables", check=False):
            pytest.skip("probed: no iptables over nftables on this machine")
        # what Docker leaves on a machine
        world.sh("iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -I FORWARD -j DOCKER-USER")
        before = world.sh("iptables -S")
        networks = world.networks()
        await networks.open()
        assert "warnings" not in networks.report()
        container = await world.join(networks, ports=(port(8080),))
        world.serve(container, "tcp", 80)
        world.serve(world.outside, "tcp", 7000)
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)
        assert await reaches(world, "tcp", OUTSIDE_ADDRESS, 7000, container)
        after = world.sh("iptables -S")
        await networks.close()
        again = world.networks()
        await again.open()
        assert world.sh("iptables -S") == after, "the rules are not added twice"
        await again.destroy()
        await again.close()
        assert world.sh("iptables -S") == before

    in_private_network(scenario)


def test_a_busy_udp_client_follows_the_port_to_its_next_container(in_private_network: Run) -> None:
    client = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{HOST_ADDRESS}", 5353)); s.settimeout(0.05)
while True:
    time.sleep(0.02)
    try:
        s.send(b"x"); print(s.recv(100).decode(), flush=True)
    except OSError:
        pass
"""

    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        first = await world.join(networks, ports=(port(5353, protocol="udp"),))
        world.serve(first, "udp", 80)
        sender = world.spawn_in(world.outside, ["python3", "-c", client])
        assert sender.stdout is not None
        assert await asyncio.to_thread(sender.stdout.readline)
        await networks.release(first.id)
        await networks.settle()
        second = await world.join(networks, ports=(port(5353, protocol="udp"),))
        world.serve(second, "udp", 80)
        os.set_blocking(sender.stdout.fileno(), False)
        sender.stdout.read()  # what the first container answered
        answers = b""
        for _ in range(100):
            await asyncio.sleep(0.05)
            answers += sender.stdout.read() or b""
            if answers.count(b"\n") >= 5:
                break
        else:
            pytest.fail("the client still talks to the first container")
        await networks.close()

    in_private_network(scenario)


def test_a_flushed_ruleset_is_mended_by_the_next_change(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        first = await world.join(networks, ports=(port(8080),))
        world.serve(first, "tcp", 80)
        world.sh("nft flush ruleset")
        second = await world.join(networks, ports=(port(8081),))
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)
        world.sh("nft flush ruleset")
        await networks.release(second.id)
        assert await reaches(world, "tcp", HOST_ADDRESS, 8080, world.outside)
        assert "8081" not in world.sh("nft list ruleset")
        await networks.close()

    in_private_network(scenario)


def test_dns_server_may_be_published_on_port_53(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        server = await world.join(networks, names=("ns",), ports=(port(53, 53, protocol="udp"), port(53, 53)))
        world.serve(server, "udp", 53)
        assert await reaches(world, "udp", HOST_ADDRESS, 53, world.outside)
        neighbour = await world.join(networks)
        answer = await world.ask("udp", "172.19.0.1", 53, neighbour)
        assert not answer.startswith("hello"), "containers' own resolver is not redirected"
        await networks.close()

    in_private_network(scenario)
