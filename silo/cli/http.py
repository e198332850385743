"""Just enough of HTTP/1.1 to speak to the daemon's Unix socket: one request a connection, length or chunks, and the hijack by
which attach and exec turn a connection into a two-way stream.

By `_socket`, for `socket` and `http.client` cost 15 ms to load. The daemon's answers are bounded where they are kept in memory.
"""

from __future__ import annotations

import _socket

from silo.cli.failure import DaemonUnreachable, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 128 * 1024
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def quote(text: str, safe: str = "") -> str:
    """Percent-encoding of UTF-8."""
    if all(letter in _SAFE or letter in safe for letter in text):
        return text
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if chr(byte) in _SAFE or chr(byte) in safe else f"%{byte:02X}" for byte in raw)


def encode_query(query: Mapping[str, str | list[str]]) -> str:
    """`?a=b&c=d`, leaving out empty values; a list repeats its key."""
    parts = []
    for key, value in query.items():
        for item in value if isinstance(value, list) else [value]:
            if item != "":
                parts.append(f"{key}={quote(item)}")
    return "?" + "&".join(parts) if parts else ""


def connect(path: str) -> _socket.socket:
    """Raises DaemonUnreachable when nobody listens, Failure when this user may not."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        raise DaemonUnreachable(f"no Silo daemon answers on {path}") from None
    except PermissionError:
        connection.close()
        raise Failure(f"you may not use the Silo daemon's socket {path}: run this as root (sudo silo …)") from None
    except OSError as error:
        connection.close()
        raise Failure(f"the daemon's socket {path}: {error.strerror or error}") from None
    return connection


def send_request(
    connection: _socket.socket,
    method: str,
    target: str,
    *,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    hijack: bool = False,
) -> None:
    """Send all of it. An iterable body goes in chunks; if the daemon answers before its end and hangs up, the rest is not sent."""
    lines = [f"{method} {target} HTTP/1.1", "Host: api.moby.localhost", "User-Agent: silo"]
    lines.append("Connection: Upgrade\r\nUpgrade: tcp" if hijack else "Connection: close")
    lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    elif body is not None:
        lines.append("Transfer-Encoding: chunked")
    elif method in ("POST", "PUT"):
        lines.append("Content-Length: 0")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
    try:
        if isinstance(body, bytes):
            connection.sendall(head + body)
            return
        connection.sendall(head)
        if body is not None:
            for chunk in body:
                if chunk:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        # It has answered already, most likely by an error: the answer says why.
        return


class Response:
    """An answer whose body is read as it comes. `buffer` holds what came with the head: the beginning of a hijacked stream."""

    def __init__(self, connection: _socket.socket) -> None:
        self.connection = connection
        self.buffer = b""
        self.headers: dict[str, str] = {}
        self.status = self._read_head()

    def _read_head(self) -> int:
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self.buffer) > MAX_HEAD_BYTES or not self._receive():
                    raise Failure("the daemon hung up before it answered; its log says why")
                continue
            head, self.buffer = self.buffer[:end].decode("latin-1").split("\r\n"), self.buffer[end + 4 :]
            words = head[0].split(" ", 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise Failure("what answers on the socket does not speak HTTP: is it the Silo daemon?")
            if words[1] != "100":
                break
        for line in head[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        return int(words[1])

    def _receive(self) -> bool:
        try:
            data = self.connection.recv(CHUNK_BYTES)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. Raises Failure when it ends too early."""
        if self.status in (204, 304):
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunks()
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left > 0:
                if not self.buffer and not self._receive():
                    raise Failure("the daemon hung up in the middle of its answer")
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(piece)
                yield piece
        else:
            while self.buffer or self._receive():
                piece, self.buffer = self.buffer, b""
                yield piece

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD_BYTES or not self._receive():
                raise Failure("the daemon hung up in the middle of its answer")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                left = int(self._line().split(b";")[0], 16)
            except ValueError:
                raise Failure("the daemon's answer is damaged") from None
            if left == 0:
                return
            while left > 0:
                if not self.buffer and not self._receive():
                    raise Failure("the daemon hung up in the middle of its answer")
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(piece)
                yield piece
            self._line()

    def read(self) -> bytes:
        parts, size = [], 0
        for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise Failure("the daemon's answer is too long")
        return b"".join(parts)

    def lines(self) -> Iterator[bytes]:
        """The body line by line, without empty ones."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line
        if rest.strip():
            yield rest

    def close(self) -> None:
        self.connection.close()
