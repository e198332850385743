"""Docker's multiplexed stream: frames of `[1|2, 0, 0, 0][uint32 length, big endian][payload]`. Pure but for the sinks."""

from __future__ import annotations

from silo.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES = 8


class Demultiplexer:
    """Feed it bytes as they come; `write(stream, payload)` gets them apart (1 standard output, 2 standard error)."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self._write = write
        self._rest = b""
        self._left = 0
        self._stream = 1

    def feed(self, data: bytes) -> None:
        """Payload is passed on at once, also the part of a frame. Raises Failure for what is not a frame."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                payload = data[position : position + self._left]
                self._left -= len(payload)
                position += len(payload)
                self._write(self._stream, payload)
                continue
            if end - position < HEADER_BYTES:
                self._rest = data[position:]
                return
            stream = data[position]
            if stream > 3 or data[position + 1 : position + 4] != b"\0\0\0":
                raise Failure("the daemon's stream is damaged: a frame does not begin as it should")
            self._stream = 2 if stream >= 2 else 1
            self._left = int.from_bytes(data[position + 4 : position + 8], "big")
            position += HEADER_BYTES
