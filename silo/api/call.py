"""One call of the API: what a handler gets, and the ways in which it can answer.

A handler returns a `Reply` (most), or streams through the call (`begin`, `write`) or takes the connection over (`hijack`)
and returns None. Query words follow Docker's rules: a flag is false for nothing, 0, no, false and none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from silo.api.body import Body
from silo.api.connection import Connection
from silo.api.head import Request
from silo.errors import InvalidRequest

JSON = "application/json"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
TAR = "application/x-tar"
MAX_JSON_BYTES = 4 * 1024 * 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_FALSE = frozenset(("", "0", "no", "false", "none"))


class Reply:
    """A whole answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: str = "", headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}


NO_CONTENT = Reply(204)


def reply_json(value: object, status: int = 200) -> Reply:
    """`value` as JSON; None members stay, so that shapes are Docker's to the letter."""
    return Reply(status, _encode(value) + b"\n", JSON)


def encode_json(value: object) -> bytes:
    return _encode(value)


class Call:
    """A request that has found its route."""

    def __init__(
        self, connection: Connection, request: Request, variables: Mapping[str, str], version: tuple[int, int]
    ) -> None:
        self._connection = connection
        self._request = request
        self._query: dict[str, list[str]] | None = None
        self.variables = variables
        self.version = version
        self.method = request.method
        self.headers: Mapping[str, str] = request.headers

    # What the client asked

    @property
    def name(self) -> str:
        """The object in the path."""
        return self.variables["name"]

    def values(self, key: str) -> list[str]:
        if self._query is None:
            query = self._request.query
            self._query = parse_qs(query, keep_blank_values=True, max_num_fields=1000) if query else {}
        return self._query.get(key, [])

    def text(self, key: str, default: str = "") -> str:
        values = self.values(key)
        return values[0] if values else default

    def flag(self, key: str, default: bool = False) -> bool:
        values = self.values(key)
        return values[0].strip().lower() not in _FALSE if values else default

    def number(self, key: str) -> int | None:
        """None when absent or empty. Raises InvalidRequest."""
        text = self.text(key)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise InvalidRequest(f"invalid value for {key}: {text!r} is not a number") from None

    def filters(self) -> dict[str, tuple[str, ...]]:
        """`filters` in either of Docker's forms: {"key": {"value": true}} or {"key": ["value"]}."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            found: Any = _decode(text)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"invalid filters: {error}") from None
        if not isinstance(found, dict):
            raise InvalidRequest("invalid filters: not a JSON object")
        return {key: _filter_values(key, value) for key, value in found.items()}

    async def body(self, limit_bytes: int = MAX_JSON_BYTES) -> bytes:
        """The whole body. Raises InvalidRequest when it is larger than the limit."""
        parts, size = [], 0
        while chunk := await self._request.body.read():
            size += len(chunk)
            if size > limit_bytes:
                raise InvalidRequest(f"the request's body is larger than {limit_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece; the client waits while nobody reads."""
        return self._request.body.chunks()

    # Answers

    def begin(
        self, content_type: str, status: int = 200, headers: dict[str, str] | None = None, *, cancel: bool = True
    ) -> None:
        """Send the head now; the rest follows by `write`. `cancel`: the handler ends when the client goes away."""
        if cancel:
            self._connection.cancellable = True
        self._connection.begin_stream(status, content_type, headers or {})

    async def write(self, data: bytes) -> None:
        await self._connection.write(data)

    async def write_json(self, value: object) -> None:
        """One line of a JSON stream."""
        await self._connection.write(_encode(value) + b"\r\n")

    def hijack(self, *, multiplexed: bool) -> Body:
        """Take the connection over. From API 1.42 on, the content type tells whether output comes in frames."""
        framed = multiplexed and self.version >= (1, 42)
        return self._connection.hijack(MULTIPLEXED_STREAM if framed else RAW_STREAM)


def _filter_values(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(str(name) for name, wanted in value.items() if wanted)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidRequest(f"invalid filter '{key}'", hint="a list of strings, or an object of strings to true")
