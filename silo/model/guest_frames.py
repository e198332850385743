"""Frames between the host and the agent of a utility VM (docs/guest-protocol.md): what both ends must agree on.

A frame is `u32 length | u8 type | u32 stream | payload`, little endian; `length` counts the payload and is at most 64 KiB.

The wire loses bytes while nobody holds the host's end, in the middle of frames too. So each connection begins with a preamble,
`SYNC | 16 bytes of the host's choice`, which the agent repeats. What makes SYNC findable in the middle of anything:

- It begins with 0xFF (no type) and holds no zero byte, while the fourth byte of a length and of a stream number are always
  zero. So no header and no two frames in a row can spell it, except with all of its first 13 bytes at a payload's end.
- JSON holds no byte of it, and `split_data` cuts data that spells those 13 bytes into two frames.

That holds for what the host sends. In the other direction nothing need be hidden: the host looks for its own nonce.

Standard library only: the agent imports this without site-packages.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from silo.errors import GuestError

PORT_NAME = "org.silo.agent.0"
"""Of the virtio-serial port between the two."""

VERSION = 2
HEADER = struct.Struct("<IBI")
OFFSET = struct.Struct("<Q")
CREDIT_BODY = struct.Struct("<QQ")

MAXIMUM_PAYLOAD_BYTES = 65536
MAXIMUM_DATA_BYTES = MAXIMUM_PAYLOAD_BYTES - OFFSET.size
MAXIMUM_MESSAGE_BYTES = 1 << 20
"""Of one JSON text, which MORE frames may spread over several payloads."""
MAXIMUM_STREAM = (1 << 24) - 1
WINDOW_BYTES = 262144

HELLO, REQUEST, REPLY, EVENT, DATA, CREDIT, END, MORE = range(1, 9)

SYNC = b"\xff\xfeSILO-SYNC\xfd\xfc\xfb\xfa\xf9"
NONCE_BYTES = 16
PREAMBLE_BYTES = len(SYNC) + NONCE_BYTES
_TELLTALE = SYNC[:13]


class ProtocolError(GuestError):
    """The peer sent what the protocol does not allow."""


class Frame(NamedTuple):
    type: int
    stream: int
    payload: bytes


def encode_frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, stream) + payload


def encode_message(kind: int, number: int, value: Any) -> bytes:
    """A JSON message as one frame, or as MORE frames and one; ValueError when it is too long."""
    text = json.dumps(value, separators=(",", ":")).encode()
    if len(text) <= MAXIMUM_PAYLOAD_BYTES:
        return encode_frame(kind, number, text)
    if len(text) > MAXIMUM_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(text)} bytes is longer than {MAXIMUM_MESSAGE_BYTES}")
    pieces = [text[at : at + MAXIMUM_PAYLOAD_BYTES] for at in range(0, len(text), MAXIMUM_PAYLOAD_BYTES)]
    return b"".join(
        [*(encode_frame(MORE, number, piece) for piece in pieces[:-1]), encode_frame(kind, number, pieces[-1])]
    )


def encode_data(stream: int, offset: int, data: bytes) -> bytes:
    """At most MAXIMUM_DATA_BYTES; what the host sends goes through split_data."""
    return HEADER.pack(OFFSET.size + len(data), DATA, stream) + OFFSET.pack(offset) + data


def encode_credit(stream: int, acknowledged: int, limit: int) -> bytes:
    return encode_frame(CREDIT, stream, CREDIT_BODY.pack(acknowledged, limit))


def encode_end(stream: int, offset: int) -> bytes:
    return encode_frame(END, stream, OFFSET.pack(offset))


def split_data(data: bytes) -> Iterator[bytes]:
    """Pieces for encode_data none of which can be taken for a preamble."""
    start = 0
    while start < len(data):
        stop = min(start + MAXIMUM_DATA_BYTES, len(data))
        found = data.find(_TELLTALE, start, stop)
        if found >= 0:
            stop = found + 6
        yield data[start:stop]
        start = stop


def parse_data(untrusted_payload: bytes) -> tuple[int, bytes]:
    """(offset, bytes) of a DATA payload."""
    if len(untrusted_payload) <= OFFSET.size:
        raise ProtocolError("a data frame without data")
    return OFFSET.unpack_from(untrusted_payload)[0], untrusted_payload[OFFSET.size :]


def parse_credit(untrusted_payload: bytes) -> tuple[int, int]:
    """(acknowledged, limit)"""
    if len(untrusted_payload) != CREDIT_BODY.size:
        raise ProtocolError("a credit frame of the wrong size")
    acknowledged, limit = CREDIT_BODY.unpack(untrusted_payload)
    if limit < acknowledged:
        raise ProtocolError("a credit below what it acknowledges")
    return acknowledged, limit


def parse_end(untrusted_payload: bytes) -> int:
    if len(untrusted_payload) != OFFSET.size:
        raise ProtocolError("an end frame of the wrong size")
    offset: int = OFFSET.unpack(untrusted_payload)[0]
    return offset


class FrameParser:
    """Bytes in, whole frames out; JSON that came in MORE frames is one frame. Holds one message and one frame at most.

    After a ProtocolError it must not be fed again, only `reset`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._message_number = -1

    def reset(self) -> None:
        self._buffer.clear()
        self._message.clear()
        self._message_number = -1

    @property
    def held(self) -> int:
        """Bytes of unfinished frames."""
        return len(self._buffer) + len(self._message)

    def feed(self, untrusted_data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """Exhaust it before the next call. Raises ProtocolError."""
        buffer = self._buffer
        buffer += untrusted_data
        at = 0
        try:
            while len(buffer) - at >= HEADER.size:
                length, kind, stream = HEADER.unpack_from(buffer, at)
                if length > MAXIMUM_PAYLOAD_BYTES or not HELLO <= kind <= MORE or stream > MAXIMUM_STREAM:
                    raise ProtocolError(f"a malformed frame: length {length}, type {kind}, stream {stream}")
                stop = at + HEADER.size + length
                if stop > len(buffer):
                    break
                payload = bytes(buffer[at + HEADER.size : stop])
                at = stop
                frame = self._assemble(kind, stream, payload)
                if frame is not None:
                    yield frame
        finally:
            del buffer[:at]

    def _assemble(self, kind: int, stream: int, payload: bytes) -> Frame | None:
        if kind != MORE and self._message_number < 0:
            return Frame(kind, stream, payload)
        if self._message_number not in (-1, stream) or kind not in (HELLO, REQUEST, REPLY, EVENT, MORE):
            raise ProtocolError("another frame stands between the parts of a message")
        if len(self._message) + len(payload) > MAXIMUM_MESSAGE_BYTES or not payload:
            raise ProtocolError("a message is too long or has an empty part")
        self._message += payload
        self._message_number = stream
        if kind == MORE:
            return None
        whole = bytes(self._message)
        self._message.clear()
        self._message_number = -1
        return Frame(kind, stream, whole)


class SyncFinder:
    """Looks for a preamble in a stream of anything; holds a preamble's length at most.

    With a nonce it finds that one only (the host's end), without it finds any (the agent's).
    """

    def __init__(self, nonce: bytes = b"") -> None:
        self._wanted = SYNC + nonce
        self._tail = b""

    def feed(self, untrusted_data: bytes) -> tuple[bytes, bytes] | None:
        """(nonce, what follows the preamble) of the last preamble in the data, or None."""
        data = self._tail + untrusted_data
        at = data.rfind(self._wanted)
        if at >= 0 and at + PREAMBLE_BYTES <= len(data):
            self._tail = b""
            start = at + len(SYNC)
            return data[start : start + NONCE_BYTES], data[start + NONCE_BYTES :]
        if at >= 0:
            self._tail = data[at:]
        else:
            self._tail = data[-(len(self._wanted) - 1) :]
        return None
