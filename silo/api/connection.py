"""HTTP/1.1 as a Docker client speaks it, on one connection.

httptools parses heads and chunked bodies; bodies of a known length bypass it. A head is fed alone, so bytes that follow a
request (the input of a hijacking client, a pipelined request) are never taken for something else. While a handler runs, one
connection buffers at most a few hundred kilobytes in each direction and then stops reading, or makes the handler wait.

    head -> [body] -> handler answers (response | chunked stream | hijack) -> next head
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from silo.api.body import Body, ClientGone
from silo.api.hangup import HangupWatcher
from silo.api.head import HeadParser, Request

MAX_HEAD_BYTES = 64 * 1024
MAX_DISCARD_BYTES = 16 * 1024 * 1024
WRITE_HIGH_WATER_BYTES = 256 * 1024

REASONS = {
    101: "UPGRADED", 200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict", 413: "Request Entity Too Large",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable",
}  # fmt: skip


class Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    """The request is complete; what comes now is kept for later."""
    HIJACKED = enum.auto()
    CLOSED = enum.auto()


class Handling(Protocol):
    """What a connection needs of its server."""

    hangups: HangupWatcher
    common_headers: bytes

    def handle(self, connection: Connection, request: Request) -> Coroutine[Any, Any, None]: ...
    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One client. A request is handled by one task; the next request waits for its end."""

    def __init__(self, server: Handling, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport
        self._phase = Phase.HEAD
        self._buffer = bytearray()
        self._parse: HeadParser | None = None
        self._missing_bytes: int | None = None
        self._discarded_bytes = 0
        self._request: Request | None = None
        self._body: Body
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._reading = True
        self._eof = False
        self._chunked = False
        self._head_only = False
        self.answered = False
        """The head of an answer has been sent: an error can no longer become a status."""
        self.cancellable = False
        """The present handler is of no use when the client is gone."""

    # The event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.HIJACKED:
            self._body.push(data)
        elif self._phase is Phase.BODY:
            self._take_body(data)
        else:
            self._buffer += data
            if self._phase is Phase.HEAD:
                self._take_head()
            elif len(self._buffer) > MAX_HEAD_BYTES:
                self._pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        if self._phase is Phase.HIJACKED:
            self._body.end()
        elif self._phase is Phase.BODY:
            self._body.fail(ClientGone())
        elif self._phase is not Phase.ANSWER:
            return False
        self._server.hangups.watch(self._fileno(), self._hung_up)
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.hangups.forget(self._fileno())
        hijacked, self._phase = self._phase is Phase.HIJACKED, Phase.CLOSED
        if self._task is not None:
            self._body.fail(ClientGone())
            if hijacked or self.cancellable:
                self._task.cancel()
        self.resume_writing()
        self._server.closed(self)

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def _hung_up(self) -> None:
        if self._phase is not Phase.CLOSED:
            self._transport.abort()

    def _fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())

    # Requests in

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                self._refuse(431, "the request's head is too large")
            return
        if end > MAX_HEAD_BYTES:
            self._refuse(431, "the request's head is too large")
            return
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        parse = HeadParser()
        try:
            parse.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed HTTP request: {error}")
            return
        request = parse.request
        if not request.method:
            self._refuse(400, "malformed HTTP request")
            return
        self._begin(request, parse)

    def _begin(self, request: Request, parse: HeadParser) -> None:
        body = request.body = self._body = Body(self._pause_reading, self._resume_reading)
        self._request, self._discarded_bytes = request, 0
        self.answered, self._chunked, self.cancellable = False, False, False
        self._head_only = request.method == "HEAD"
        length = request.headers.get("content-length", "")
        if "transfer-encoding" in request.headers:
            self._phase, self._missing_bytes, self._parse = Phase.BODY, None, parse
            parse.on_chunk = body.push
        elif length and int(length):
            self._phase, self._missing_bytes = Phase.BODY, int(length)
        else:
            self._phase = Phase.ANSWER
            body.end()
        if request.expects_continue and not body.ended:
            body.on_first_read = self._send_continue
        self._task = self._loop.create_task(self._run(request))
        if self._phase is Phase.BODY:
            if self._buffer:
                rest = bytes(self._buffer)
                self._buffer.clear()
                self._take_body(rest)
            elif self._eof:
                body.fail(ClientGone())

    def _take_body(self, data: bytes) -> None:
        self._discarded_bytes += len(data) if self.answered else 0
        if self._missing_bytes is not None:
            taken = data[: self._missing_bytes]
            self._buffer += data[self._missing_bytes :]
            self._missing_bytes -= len(taken)
            self._body.push(taken)
            complete = self._missing_bytes == 0
        else:
            complete = self._feed_chunked(data)
        if complete:
            self._phase = Phase.ANSWER
            self._body.end()
            if self._task is None:
                self._next()
        elif self._task is None and self._discarded_bytes > MAX_DISCARD_BYTES:
            self.close()

    def _feed_chunked(self, data: bytes) -> bool:
        assert self._parse is not None
        try:
            self._parse.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            # Bytes after the last chunk are a pipelined request, which is not worth a second parser: the client gets its
            # answer and then a closed connection. Anything else is a broken body.
            assert self._request is not None
            self._request.keep_alive = False
            if not self._parse.complete:
                self._body.fail(ClientGone())
                self._pause_reading()
                return False
        return self._parse.complete

    def _send_continue(self) -> None:
        if not self.answered:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int, text: str) -> None:
        """A request that could not even be read."""
        body = b'{"message":' + _json_text(text) + b"}\n"
        self._write_head(status, "application/json", {}, length=len(body), close=True)
        self._transport.write(body)
        self.close()

    async def _run(self, request: Request) -> None:
        try:
            await self._server.handle(self, request)
        finally:
            self._task = None
            self._after_answer(request)

    def _after_answer(self, request: Request) -> None:
        if self._phase is Phase.CLOSED:
            return
        if self._phase is Phase.HIJACKED or not request.keep_alive or not self.answered or self._eof:
            self.close()
            return
        self._resume_reading()
        if self._phase is Phase.BODY:
            self._body.discard()
        else:
            self._next()

    def _next(self) -> None:
        self._phase, self._request, self._parse = Phase.HEAD, None, None
        if self._buffer:
            self._take_head()

    def _pause_reading(self) -> None:
        if self._reading and self._phase is not Phase.CLOSED:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self._eof and self._phase is not Phase.CLOSED:
            self._reading = True
            self._transport.resume_reading()

    # Answers out; the handler's task calls

    def _write_head(
        self, status: int, content_type: str, headers: dict[str, str], *, length: int | None, close: bool
    ) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n"]
        if content_type:
            lines.append(f"Content-Type: {content_type}\r\n")
        if length is not None:
            lines.append(f"Content-Length: {length}\r\n")
        elif self._chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if close:
            lines.append("Connection: close\r\n")
        self._transport.write("".join(lines).encode("latin-1", "replace") + self._server.common_headers + b"\r\n")

    async def respond(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        """A whole answer at once."""
        if self._phase is Phase.CLOSED:
            return
        assert self._request is not None
        self.answered = True
        length = None if status in (204, 304) else len(body)
        close = not self._request.keep_alive or self._eof
        self._write_head(status, content_type, headers, length=length, close=close)
        if body and not self._head_only and length is not None:
            await self._send(body)

    def begin_stream(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        """The head of an answer whose length is not known; it is on its way when this returns."""
        if self._phase is Phase.CLOSED:
            return
        assert self._request is not None
        self.answered = True
        self._chunked = not self._request.old_http and not self._head_only
        if self._request.old_http:
            self._request.keep_alive = False
        self._write_head(status, content_type, headers, length=None, close=not self._request.keep_alive)

    async def write(self, data: bytes) -> None:
        """A piece of a stream or of a hijacked connection; waits while the client is slow."""
        if not data or self._head_only:
            return
        if self._chunked:
            await self._send(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            await self._send(data)

    async def end_stream(self) -> None:
        if self._chunked:
            await self._send(b"0\r\n\r\n")

    def hijack(self, content_type: str) -> Body:
        """Turn the connection into a raw stream; answers what the client sends, up to its half-close."""
        assert self._request is not None
        if self._phase is Phase.CLOSED:
            raise ClientGone
        self.answered = True
        headers = self._request.headers
        if "upgrade" in headers:
            upgrade = headers["upgrade"].split(",")[0].strip() or "tcp"
            if not upgrade.replace("-", "").replace("/", "").isalnum():
                upgrade = "tcp"
            self._write_head(101, content_type, {"Connection": "Upgrade", "Upgrade": upgrade}, length=None, close=False)
        else:
            self._write_head(200, content_type, {}, length=None, close=False)
        self._phase = Phase.HIJACKED
        self._body = Body(self._pause_reading, self._resume_reading)
        self._resume_reading()
        if self._buffer:
            self._body.push(bytes(self._buffer))
            self._buffer.clear()
        if self._eof:
            self._body.end()
        return self._body

    async def _send(self, data: bytes) -> None:
        if self._phase is Phase.CLOSED:
            return
        self._transport.write(data)
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def close(self) -> None:
        """After what was written has been sent."""
        if self._phase is not Phase.CLOSED:
            self._transport.close()

    @property
    def idle(self) -> bool:
        return self._task is None

    def abort(self) -> None:
        """The server ends: the handler is cancelled and nothing more is sent."""
        if self._task is not None:
            self._task.cancel()
        self.close()

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task


def _json_text(text: str) -> bytes:
    escaped = unquote(text).encode("ascii", "replace").decode()
    return ('"' + "".join(ch if ch not in '"\\' and ch >= " " else "?" for ch in escaped) + '"').encode()
