"""Names of containers through real sockets on the gateway addresses, and everything else through the host's servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import dnslib
import pytest

from silo.model.network import EndpointRequest, NetworkConfig
from silo.network import forwarder
from tests.system.network.conftest import Container, Scenario, World

pytestmark = pytest.mark.system
Run = Callable[[Scenario], None]

QUERY = """
import socket, sys
kind, server, query = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(3)
try:
    s.connect((server, 53))
    s.sendall(len(query).to_bytes(2, "big") + query if kind == "tcp" else query)
    data = s.recv(65535)
    print((data[2:] if kind == "tcp" else data).hex())
except OSError:
    print("")
"""
GATEWAY = "172.19.0.1"


async def lookup(
    world: World, where: Container | None, name: str, kind: str = "A", *, server: str = GATEWAY, by: str = "udp"
) -> list[str] | str:
    """The answers' data; or the name of the failure."""
    prefix = ["nsenter", f"--net={where.sandbox.netns}"] if where else []
    packed = dnslib.DNSRecord.question(name, kind).pack().hex()
    process = await asyncio.create_subprocess_exec(
        *prefix, "python3", "-c", QUERY, by, server, packed, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    data = bytes.fromhex(output.decode().strip())
    if not data:
        return "silence"
    reply = dnslib.DNSRecord.parse(data)
    if reply.header.rcode:
        return str(dnslib.RCODE[reply.header.rcode])
    return [str(entry.rdata) for entry in reply.rr]


class Upstream(asyncio.DatagramProtocol):
    """A name server of the host, on its loopback."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dnslib.DNSRecord.parse(data)
        self.seen.append(str(query.q.qname))
        reply = query.reply()
        reply.add_answer(dnslib.RR(query.q.qname, dnslib.QTYPE.A, ttl=60, rdata=dnslib.A("192.0.2.53")))
        packed = reply.pack()
        transport = cast(asyncio.DatagramTransport, self.transport)
        transport.sendto(bytes([packed[0] ^ 1]) + packed[1:-1] + b"\1", addr)  # another id: must be passed over
        transport.sendto(packed, addr)


@pytest.fixture
def resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("# a comment\nnameserver 127.0.0.53\noptions edns0\n")
    monkeypatch.setattr(forwarder.Forwarder.__init__, "__kwdefaults__", {"resolv_conf": path, "port": 53})
    return path


def test_names_of_shared_networks_only(in_private_network: Run, resolv_conf: Path) -> None:
    async def scenario(world: World) -> None:
        resolv_conf.write_text("")
        networks = world.networks()
        await networks.open()
        blue = await networks.create(NetworkConfig(id="", name="blue", subnet="10.50.0.0/24"))
        web = await world.join(networks, names=("web", "0123456789ab"))
        db = await world.join(
            networks,
            EndpointRequest(network="bridge", aliases=("database",)),
            EndpointRequest(network="blue"),
            names=("db",),
        )
        cache = await world.join(networks, EndpointRequest(network="blue"), names=("cache",))
        assert networks.resolver_address(web.endpoints) == GATEWAY
        for by in ("udp", "tcp"):
            assert await lookup(world, web, "db", by=by) == [db.address]
        assert await lookup(world, db, "WEB.") == [web.address]
        assert await lookup(world, db, "web.bridge") == [web.address]
        assert await lookup(world, db, "0123456789ab") == [web.address]
        assert await lookup(world, web, "database") == [db.address]
        assert await lookup(world, web, "db", "AAAA") == []
        assert await lookup(world, db, "cache") == [cache.address]
        assert await lookup(world, web, "cache") == "SERVFAIL"
        assert await lookup(world, web, "cache", server=blue.gateway) == "silence", "another network's server"
        assert await lookup(world, None, "db") == [db.address], "the host itself"
        reverse = ".".join(reversed(db.address.split("."))) + ".in-addr.arpa"
        assert await lookup(world, web, reverse, "PTR") == ["db.bridge."]
        assert await lookup(world, web, "99.0.19.172.in-addr.arpa", "PTR") == "NXDOMAIN"
        assert await lookup(world, web, "host.docker.internal") == [GATEWAY]
        await networks.release(db.id)
        assert await lookup(world, web, "db") == "SERVFAIL"
        await networks.close()

    in_private_network(scenario)


def test_other_names_come_from_the_hosts_servers(in_private_network: Run, resolv_conf: Path) -> None:
    async def scenario(world: World) -> None:
        upstream = Upstream()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=("127.0.0.53", 53))
        networks = world.networks()
        await networks.open()
        await networks.create(NetworkConfig(id="", name="inner", internal=True, subnet="10.60.0.0/24"))
        container = await world.join(networks)
        hidden = await world.join(networks, EndpointRequest(network="inner"), names=("hidden",))
        assert await lookup(world, container, "example.org") == ["192.0.2.53"]
        assert await lookup(world, hidden, "secret.example.org", server="10.60.0.1") == "NXDOMAIN"
        assert await lookup(world, hidden, "hidden", server="10.60.0.1") == [hidden.address]
        assert upstream.seen == ["example.org."], "nothing leaks out of an internal network"
        transport.close()
        assert await lookup(world, container, "example.org") == "SERVFAIL"
        resolv_conf.write_text(f"nameserver {GATEWAY}\n")
        assert await lookup(world, container, "example.org") == "SERVFAIL", "no loop through ourselves"
        await networks.close()

    in_private_network(scenario)


def test_links_and_names_after_a_crash(in_private_network: Run, resolv_conf: Path) -> None:
    async def scenario(world: World) -> None:
        resolv_conf.write_text("")
        networks = world.networks()
        await networks.open()
        db = await world.join(networks, names=("db",))
        web = await world.join(networks, EndpointRequest(network="bridge", links=("db:store",)), names=("web",))
        assert await lookup(world, web, "store") == [db.address]
        await networks.close()
        again = world.networks()
        await again.open()
        await again.recover({c.id: c.endpoints for c in (db, web)}, {})
        assert await lookup(world, web, "store") == [db.address]
        assert await lookup(world, db, "web") == [web.address]
        assert await lookup(world, db, "store") == "SERVFAIL", "a link is its owner's alone"
        await again.close()

    in_private_network(scenario)


def test_a_taken_port_53_is_said_and_the_hosts_servers_are_used(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        server = world.serve(0, "udp", 53)
        networks = world.networks()
        await networks.open()
        container = await world.join(networks)
        assert networks.resolver_address(container.endpoints) is None
        assert f"{GATEWAY}:53" in networks.report()["warnings"]
        assert f"pid {server.pid}" in networks.report()["warnings"]
        await networks.close()

    in_private_network(scenario)


def test_hostile_packets_get_no_more_than_a_refusal(in_private_network: Run, resolv_conf: Path) -> None:
    async def scenario(world: World) -> None:
        resolv_conf.write_text("")
        networks = world.networks()
        await networks.open()
        await world.join(networks, names=("web",))
        loop_pointer = bytes.fromhex("123401000001000000000000") + b"\xc0\x0c\0\1\0\1"
        packets = [
            b"",
            b"x",
            bytes(12),
            b"\xff" * 600,
            loop_pointer,
            bytes.fromhex("1234280000010000000000000000010001"),
        ]
        async with asyncio.timeout(10):
            for packet in packets:
                reader, writer = await asyncio.open_connection(GATEWAY, 53)
                writer.write(len(packet).to_bytes(2, "big") + packet)
                writer.write_eof()
                with contextlib.suppress(ConnectionResetError):
                    answer = await reader.read()
                    assert len(answer) in (0, 14) and (not answer or answer[5] & 0x0F != 0)
                writer.close()
        assert await lookup(world, None, "web") != "silence"
        await networks.close()

    in_private_network(scenario)


FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.connect((sys.argv[1], 53)); s.setblocking(False)
query, answers = bytes.fromhex(sys.argv[2]), 0
for number in range(20000):
    try: s.send(query)
    except OSError: pass
    try: s.recv(512); answers += 1
    except OSError: pass
print(answers)
"""


def test_a_flood_of_queries_is_cut_off(in_private_network: Run, resolv_conf: Path) -> None:
    async def scenario(world: World) -> None:
        resolv_conf.write_text("")
        networks = world.networks()
        await networks.open()
        web, flooder = await world.join(networks, names=("web",)), await world.join(networks)
        packed = dnslib.DNSRecord.question("web").pack().hex()
        script = world.directory / "flood.py"
        script.write_text(FLOOD)
        world.sh("nft add rule inet silo input udp dport 53 counter")  # behind the limit: what came through
        await asyncio.to_thread(world.sh, f"python3 {script} {GATEWAY} {packed}", flooder)
        passed = int(world.sh("nft list chain inet silo input").split("counter packets ")[1].split()[0])
        assert 1000 <= passed < 10000, "of 20000"
        element = world.sh("nft list set inet silo askers")
        assert flooder.address in element
        assert await lookup(world, web, "web") == [web.address]
        await networks.close()

    in_private_network(scenario)
