"""Ask the host's own name servers what is not a container's name.

It runs on the host, so servers on the host's loopback (127.0.0.53 of systemd-resolved) work for containers, too. Each query goes
out from a socket of its own (a random port) with an id of its own; only an answer with that id and that question comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

RESOLV_CONF = Path("/etc/resolv.conf")
TIMEOUT_S = 2.0
_MAX_SERVERS = 3
_MAX_PENDING, _MAX_PENDING_OF_ONE = 256, 64
_MAX_FILE_BYTES = 65536


def parse_nameservers(text: str) -> tuple[str, ...]:
    """The addresses of resolv.conf(5), at most three as there."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(words[1])
                found.append(words[1])
    return tuple(dict.fromkeys(found))[:_MAX_SERVERS]


class _Exchange(asyncio.DatagramProtocol):
    """One query and the first answer that fits it."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._query)

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr  # the socket is connected: nobody else's datagrams come here
        if not self.answer.done() and _fits(self._query, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        del exc  # such as "connection refused": the next server is asked at once
        if not self.answer.done():
            self.answer.set_result(None)


class Forwarder:
    """Bounded: so many queries at once in all and of one client; more are refused."""

    def __init__(
        self, own_addresses: Callable[[], Collection[str]], *, resolv_conf: Path = RESOLV_CONF, port: int = 53
    ) -> None:
        self._own_addresses = own_addresses
        self._path = resolv_conf
        self._port = port
        self._stamp: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()
        self._pending: dict[str, int] = {}

    def servers(self) -> tuple[str, ...]:
        """The host's name servers, read anew when the file has changed; our own addresses would be a loop."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with self._path.open(errors="replace") as file:
                    self._servers = parse_nameservers(file.read(_MAX_FILE_BYTES))
                self._stamp = stamp
        except OSError:
            self._servers, self._stamp = (), None
        own = self._own_addresses()
        return tuple(server for server in self._servers if server not in own)

    async def ask(self, query: bytes, client: str, *, tcp: bool) -> bytes | None:
        """The first server's answer, whatever it says; None when none answers in time or too much is asked at once."""
        if sum(self._pending.values()) >= _MAX_PENDING or self._pending.get(client, 0) >= _MAX_PENDING_OF_ONE:
            return None
        self._pending[client] = self._pending.get(client, 0) + 1
        try:
            own_id = secrets.token_bytes(2)
            for server in self.servers():
                answer = await self._ask_one(own_id + query[2:], server, tcp=tcp)
                if answer is not None:
                    return query[:2] + answer[2:]
            return None
        finally:
            self._pending[client] -= 1
            if not self._pending[client]:
                del self._pending[client]

    async def _ask_one(self, query: bytes, server: str, *, tcp: bool) -> bytes | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await (self._by_tcp(query, server) if tcp else self._by_udp(query, server))
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return None

    async def _by_udp(self, query: bytes, server: str) -> bytes | None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Exchange(query), remote_addr=(server, self._port)
        )
        try:
            return await protocol.answer
        finally:
            transport.close()

    async def _by_tcp(self, query: bytes, server: str) -> bytes | None:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = await reader.readexactly(size)
            return answer if _fits(query, answer) else None
        finally:
            writer.close()


def _fits(query: bytes, answer: bytes) -> bool:
    """Same id, a response, and the same question (servers may leave it out when they refuse)."""
    if len(answer) < 12 or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] == b"\0\0":
        return answer[3] & 0x0F != 0
    end = _question_end(query)
    return end > 0 and answer[4:6] == b"\0\1" and answer[12:end].lower() == query[12:end].lower()


def _question_end(query: bytes) -> int:
    """Where the first question ends; 0 when it is malformed."""
    position = 12
    while position < len(query):
        length = query[position]
        if length == 0:
            return position + 5 if position + 5 <= len(query) else 0
        if length > 63:
            return 0
        position += length + 1
    return 0
