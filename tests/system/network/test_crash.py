"""A daemon that is really killed: what it leaves, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, PortBinding
from tests.system.network.conftest import HOST_ADDRESS, Scenario, World

pytestmark = pytest.mark.system

DAEMON = """
import asyncio, sys
from pathlib import Path
import msgspec
from silo.model.network import EndpointRequest, NetworkConfig, PortBinding
from silo.model.runtime import Sandbox
from silo.network import BridgeNetworks
from tests.support.documents import MemoryDocuments

async def main(run_root, netns, container_id):
    documents = MemoryDocuments(NetworkConfig)
    networks = BridgeNetworks(run_root=Path(run_root), networks=documents)
    await networks.open()
    await networks.create(NetworkConfig(id="", name="blue"))
    sandbox = Sandbox(id=container_id, netns=Path(netns), user_namespace=False)
    requests = [EndpointRequest(network="blue", aliases=("alias",))]
    endpoints = await networks.connect(container_id, sandbox, requests, dns_names=["living"])
    bindings = await networks.publish(container_id, [PortBinding(container_port=80, host_port=8080)], endpoints)
    rows = [row for _, row in documents.items()]
    print(msgspec.json.encode({"rows": rows, "endpoints": endpoints, "bindings": bindings}).decode(), flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


class Left(msgspec.Struct):
    rows: list[NetworkConfig]
    endpoints: tuple[Endpoint, ...]
    bindings: tuple[PortBinding, ...]


def test_kill_loses_nothing(in_private_network: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        container = world.container()
        world.serve(container, "tcp", 80)
        root = Path(__file__).parents[3]
        argv = [sys.executable, "-c", DAEMON, str(world.directory / "run"), str(container.sandbox.netns), container.id]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as daemon:
            assert daemon.stdout is not None
            left = msgspec.json.decode(daemon.stdout.readline(), type=Left)
            daemon.kill()
        reply = await world.ask("tcp", HOST_ADDRESS, 8080, world.outside)
        assert reply.startswith("hello"), "the container's port works without a daemon"

        for row in left.rows:
            world.documents.put(row.id, row)
        networks = world.networks()
        await networks.open()
        await networks.recover({container.id: left.endpoints}, {container.id: left.bindings})
        assert (await world.ask("tcp", HOST_ADDRESS, 8080, world.outside)).startswith("hello")
        neighbour = world.container()
        request = EndpointRequest(network="blue")
        neighbour.endpoints = await networks.connect(neighbour.id, neighbour.sandbox, [request], dns_names=["new"])
        assert neighbour.address != left.endpoints[0].ipv4_address
        gateway = networks.resolver_address(neighbour.endpoints)
        # through a program's own resolver library
        resolv_conf = world.directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {gateway}\n")
        script = world.directory / "lookup.py"
        script.write_text("import socket; print(socket.gethostbyname('alias'))")
        command = f"mount --bind {resolv_conf} $(readlink -f /etc/resolv.conf) && python3 {script}"
        shown = await asyncio.to_thread(world.sh, f"unshare -m sh -c '{command}'", neighbour)
        assert shown.strip() == left.endpoints[0].ipv4_address
        assert len(await networks.statistics(container.id)) == 1
        await networks.release(container.id)
        await networks.release(neighbour.id)
        await networks.settle()
        await networks.remove("blue")
        assert left.endpoints[0].host_interface not in world.sh("ip -o link")
        await networks.close()

    in_private_network(scenario)
