"""The API server: connections, routes, and the way from an error to an answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Sequence

from silo.api.body import ClientGone
from silo.api.call import JSON, Call, Reply, encode_json
from silo.api.connection import Connection
from silo.api.hangup import HangupWatcher
from silo.api.head import Request
from silo.api.routes import build_routes
from silo.api.routing import MAX_VERSION, Route, Router, split_version, version_text
from silo.engine.engine import Engine
from silo.errors import NotFound, ProcessStartFailed, SiloError, Unsupported, http_status

CLOSE_GRACE_S = 2.0


class ApiServer:
    """Serves the Docker Engine API on any number of listening sockets (`serve` once for each)."""

    def __init__(self, engine: Engine, *, log: logging.Logger, routes: Sequence[Route] | None = None) -> None:
        self._log = log
        self._router = Router(routes if routes is not None else build_routes(engine))
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._ended = asyncio.Event()
        self.hangups: HangupWatcher
        self.common_headers = (
            f"Api-Version: {version_text(MAX_VERSION)}\r\n"
            "Docker-Experimental: false\r\nOstype: linux\r\nServer: Silo/0.1.0 (linux)\r\n"
        ).encode()

    async def serve(self, sock: socket.socket) -> None:
        """Accept connections on a bound, listening socket until `close`."""
        loop = asyncio.get_running_loop()
        if not hasattr(self, "hangups"):
            self.hangups = HangupWatcher(loop)
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(lambda: Connection(self, loop), sock=sock, backlog=1024)
        else:
            server = await loop.create_server(lambda: Connection(self, loop), sock=sock, backlog=1024)
        self._servers.append(server)
        await self._ended.wait()

    async def close(self) -> None:
        """Stop accepting, cancel what streams, give other handlers a moment to answer."""
        self._ended.set()
        for server in self._servers:
            server.close()
        tasks = []
        for connection in tuple(self._connections):
            if connection.task is None or connection.cancellable:
                connection.abort()
            if connection.task is not None:
                tasks.append(connection.task)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_GRACE_S)
            for task in late:
                task.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        if hasattr(self, "hangups"):
            self.hangups.close()

    # The connections call

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    async def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request, whatever happens."""
        try:
            version, path = split_version(request.path)
            found = self._router.find(request.method, path)
            if found is None:
                raise NotFound("page not found")
            route, variables = found
            if route.handler is None:
                raise Unsupported(f"{route.title} is not supported")
            connection.cancellable = route.streaming
            reply = await route.handler(Call(connection, request, variables, version))
            if reply is not None:
                await connection.respond(reply.status, reply.body, reply.content_type, reply.headers)
            else:
                await connection.end_stream()
        except (ClientGone, ConnectionError):
            connection.close()
        except SiloError as error:
            await self._tell(connection, http_status(error), _words(error))
        except asyncio.CancelledError:
            connection.close()
            raise
        except Exception:
            number = secrets.token_hex(4)
            self._log.exception("error %s in %s %s", number, request.method, request.path)
            await self._tell(connection, 500, f"internal error {number}: the daemon's log has the details")

    async def _tell(self, connection: Connection, status: int, text: str) -> None:
        if connection.answered:
            # Too late for a status: the client sees that the stream breaks off.
            connection.close()
            return
        reply = Reply(304) if status == 304 else Reply(status, encode_json({"message": text}) + b"\n", JSON)
        await connection.respond(reply.status, reply.body, reply.content_type, reply.headers)


# By these words of the text docker's client decides on 127 and 126.
_NOT_FOUND_WORDS = ("executable file not found", "no such file or directory")
_NOT_STARTED_WORDS = ("permission denied", "is a directory")


def _words(error: SiloError) -> str:
    text = str(error)
    if isinstance(error, ProcessStartFailed):
        words = _NOT_FOUND_WORDS if error.kind == "not_found" else _NOT_STARTED_WORDS
        if not any(word in text for word in words):
            return f"{text}: {words[0]}"
    return text
