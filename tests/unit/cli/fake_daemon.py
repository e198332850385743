"""A daemon made of canned answers on a Unix socket, which keeps what it was asked. Also what golden files are recorded with."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


Raw = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FakeDaemon:
    """`answers`: (method, path without the version) → (status, value) or a function that writes to the handler itself."""

    socket: Path
    answers: dict[tuple[str, str], tuple[int, Any] | Raw] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: FakeDaemon

    def log_message(self, *_words: object) -> None: ...

    def address_string(self) -> str:
        return "client"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path = "/" + parts.path.split("/", 2)[2] if parts.path.startswith("/v1.") else parts.path
        if path != "/_ping":
            self.daemon.asked.append(
                Asked(self.command, path, parse_qs(parts.query), self._body(), dict(self.headers.items()))
            )
        answer = self.daemon.answers.get((self.command, path), (200, {"Id": "abc123", "Warnings": []}))
        if callable(answer):
            answer(self)
            self.close_connection = True
            return
        status, value = answer
        data = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = handle_any


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def fake_daemon(directory: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(directory / "s")
    handler = type("Handler", (_Handler,), {"daemon": fake})
    with _Server(str(fake.socket), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
