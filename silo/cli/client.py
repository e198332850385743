"""The daemon as the commands see it: requests, JSON, errors in sentences, and the socket's address."""

from __future__ import annotations

import os

from silo.cli import http
from silo.cli.failure import ApiError, DaemonUnreachable, UsageError
from silo.cli.json_text import dumps, loads
from silo.cli.table import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Query = Mapping[str, str | list[str]]

DEFAULT_SOCKET = "/run/silo/silo.sock"
API_VERSION = "1.50"
_PREFIX = f"/v{API_VERSION}"


def parse_host(text: str) -> str:
    """`unix:///run/silo/silo.sock` → the path. Raises UsageError."""
    if text.startswith("unix://") and len(text) > 7:
        return text[7:]
    if text.startswith("/"):
        return text
    raise UsageError(f"invalid host {text!r}: Silo's daemon listens on a Unix socket, unix:///path/to/silo.sock")


class Client:
    """Requests to one daemon, each on a connection of its own. Starts the default daemon when none answers."""

    def __init__(self, host: str = "") -> None:
        host = host or os.environ.get("SILO_HOST", "")
        self.path = parse_host(host) if host else DEFAULT_SOCKET
        run_root = os.environ.get("SILO_RUN_ROOT", "")
        if not host and run_root:
            self.path = f"{run_root}/silo.sock"
        self._may_start = not host

    def open(self, *, may_start: bool = True) -> Any:
        """A connection. Raises DaemonUnreachable when there is no daemon and none may be started."""
        try:
            return http.connect(self.path)
        except DaemonUnreachable:
            if not self._may_start or not may_start:
                raise
            from silo.cli.daemon_start import start_daemon

            self._may_start = False
            start_daemon(self.path)
            return http.connect(self.path)

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        json: Any = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        hijack: bool = False,
    ) -> http.Response:
        """The answer, its body unread. Raises ApiError for a status of 400 and above."""
        sent = dict(headers or {})
        if json is not None:
            body = dumps(json).encode("utf-8", "surrogateescape")
            sent["Content-Type"] = "application/json"
        connection = self.open()
        target = (path if path.startswith("/silo/") else _PREFIX + path) + http.encode_query(query or {})
        http.send_request(connection, method, target, body=body, headers=sent, hijack=hijack)
        response = http.Response(connection)
        if response.status >= 400:
            message = read_message(b"" if method == "HEAD" else response.read(), response.status)
            response.close()
            raise ApiError(message, response.status)
        return response

    def call(self, method: str, path: str, query: Query | None = None, *, json: Any = None) -> Any:
        """The answer's JSON; None when it has no body."""
        response = self.request(method, path, query, json=json)
        data = response.read()
        response.close()
        return loads(data) if data.strip() else None

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, json: Any = None) -> Any:
        return self.call("POST", path, query, json=json)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.call("DELETE", path, query)

    def stream(self, method: str, path: str, query: Query | None = None, **more: Any) -> Iterator[Any]:
        """Values of a body of JSON lines as they come."""
        response = self.request(method, path, query, **more)
        try:
            for line in response.lines():
                yield loads(line)
        finally:
            response.close()


def container_path(name: str, rest: str = "") -> str:
    return f"/containers/{http.quote(name)}{rest}"


def image_path(name: str, rest: str = "") -> str:
    return f"/images/{http.quote(name, safe='/:@')}{rest}"


def read_message(untrusted_body: bytes, status: int) -> str:
    """The sentence of an error answer."""
    try:
        value = loads(untrusted_body)
        message = value["message"]
    except (ValueError, KeyError, TypeError):
        message = untrusted_body[:500].decode("utf-8", "replace").strip()
    # It may quote names from an image or a container: nothing of them may steer the terminal.
    lines = (clean(line) for line in str(message).split("\n"))
    return "\n".join(lines) or f"the daemon answered with status {status}"


def encode_filters(words: Iterable[str]) -> str:
    """`--filter key=value` words as the API wants them; "" for none. Raises UsageError."""
    filters: dict[str, dict[str, bool]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"invalid filter {word!r}: it is written key=value")
        filters.setdefault(key.strip().lower(), {})[value.strip()] = True
    return dumps(filters) if filters else ""
