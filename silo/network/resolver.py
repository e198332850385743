"""The DNS server of containers: UDP and TCP on port 53 of every bridge's gateway address.

A query is answered from `answers` (names of containers) or by `forwarder` (everything else). While the daemon is away nobody
answers; a container's resolver library tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import dnslib

from silo.errors import HostError
from silo.model.network import NetworkConfig
from silo.network.answers import MAX_QUERY_BYTES, Answers, Verdict, parse_query, refusal
from silo.network.forwarder import Forwarder
from silo.network.holds import find_port_owner

log = logging.getLogger(__name__)
PORT = 53
_MAX_CONNECTIONS = 64
_IDLE_S = 10.0
_MAX_TASKS = 1024

Reply = Callable[[bytes], None]


@dataclass(slots=True)
class _Listener:
    """What answers on one network."""

    network: NetworkConfig
    udp: asyncio.DatagramTransport
    tcp: asyncio.Server
    connections: set[asyncio.StreamWriter] = field(default_factory=set)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, handle: Callable[[bytes, tuple[str, int], Reply], None]) -> None:
        self._handle = handle
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        if transport is not None:
            self._handle(data, addr, lambda answer: None if transport.is_closing() else transport.sendto(answer, addr))


class Resolver:
    """Start and stop answering, network by network."""

    def __init__(self, answers: Answers, forwarder: Forwarder, *, port: int = PORT) -> None:
        self._answers = answers
        self._forwarder = forwarder
        self._port = port
        self._listeners: dict[str, _Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serves(self, network_id: str) -> bool:
        return network_id in self._listeners

    async def start(self, network: NetworkConfig) -> None:
        """Raises HostError when the port is taken."""
        try:
            udp_socket, tcp_socket = _bind((network.gateway, self._port))
        except OSError as error:
            raise await self._explain(network, error) from error
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(lambda data, source, reply: self._on_datagram(network, data, source, reply)),
            sock=udp_socket,
        )
        tcp = await asyncio.start_server(
            lambda reader, writer: self._on_connection(network, reader, writer),
            sock=tcp_socket,
            limit=MAX_QUERY_BYTES * 2,
        )
        self._listeners[network.id] = _Listener(network, udp, tcp)

    async def _explain(self, network: NetworkConfig, error: OSError) -> HostError:
        details = str(error)
        if error.errno == errno.EADDRINUSE:
            owners = [await asyncio.to_thread(find_port_owner, protocol, self._port) for protocol in ("udp", "tcp")]
            details = f"the port is in use by {next(filter(None, owners), 'another program')}"
        return HostError(
            f"DNS for network {network.name} cannot listen on {network.gateway}:{self._port}",
            details=details,
            hint="stop the other DNS server, or bind it to its own addresses; containers get the host's servers instead",
        )

    async def stop(self, network_id: str) -> None:
        """Idempotent."""
        listener = self._listeners.pop(network_id, None)
        if listener is None:
            return
        listener.udp.close()
        listener.tcp.close()
        for writer in listener.connections:
            writer.close()

    async def close(self) -> None:
        for network_id in list(self._listeners):
            await self.stop(network_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_datagram(self, network: NetworkConfig, data: bytes, source: tuple[str, int], reply: Reply) -> None:
        answer = self._answer_here(network, data, source[0], tcp=False)
        if isinstance(answer, bytes):
            reply(answer)
        elif answer is Verdict.FORWARD and len(self._tasks) < _MAX_TASKS:

            async def forward() -> None:
                reply(await self._forward(data, source[0], tcp=False))

            self._spawn(forward())

    def _answer_here(self, network: NetworkConfig, data: bytes, source: str, *, tcp: bool) -> bytes | Verdict:
        query = parse_query(data, tcp=tcp)
        if query is None:
            return Verdict.DROP
        return query if isinstance(query, bytes) else self._answers.answer(query, network, source)

    async def _forward(self, data: bytes, source: str, *, tcp: bool) -> bytes:
        answer = await self._forwarder.ask(data, source, tcp=tcp)
        return refusal(data, dnslib.RCODE.SERVFAIL) if answer is None else answer

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _on_connection(
        self, network: NetworkConfig, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        listener = self._listeners.get(network.id)
        if listener is None or len(listener.connections) >= _MAX_CONNECTIONS:
            writer.close()
            return
        listener.connections.add(writer)
        try:
            source = str(writer.get_extra_info("peername")[0])
            while True:
                async with asyncio.timeout(_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    if size > MAX_QUERY_BYTES:
                        return
                    data = await reader.readexactly(size)
                answer = self._answer_here(network, data, source, tcp=True)
                if answer is Verdict.DROP:
                    return
                packed = answer if isinstance(answer, bytes) else await self._forward(data, source, tcp=True)
                writer.write(len(packed).to_bytes(2, "big") + packed)
                async with asyncio.timeout(_IDLE_S):
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            log.debug("a DNS connection on %s ended", network.name)
        finally:
            listener.connections.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _bind(where: tuple[str, int]) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets. With SO_REUSEPORT: a container may publish port 53 of all addresses, its reservation is beside."""
    made: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            bound = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            made.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(where)
    except BaseException:
        for bound in made:
            bound.close()
        raise
    return made[0], made[1]
