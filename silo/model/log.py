"""The container log: a sequence of records, appended by the keeper, read by the engine.

A record is a 16-byte header and its payload: `u8 stream` (1 stdout, 2 stderr), three zero bytes, `u32 length`, `u64 time`
(nanoseconds since the epoch), all big endian. A record is at most 64 KiB and holds bytes as the program wrote them: nothing
is lost to line splitting or character sets. A torn record at the end of the file (full disk, power failure) is ignored.

Standard library only: the keeper imports this without site-packages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct(">BxxxIQ")
MAX_PAYLOAD_BYTES = 65536
STDOUT = 1
STDERR = 2


def encode_record(stream: int, time_ns: int, payload: bytes) -> bytes:
    """One record; payload of at most MAX_PAYLOAD_BYTES."""
    return HEADER.pack(stream, len(payload), time_ns) + payload


def parse_records(untrusted_data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield (stream, time_ns, payload, end offset) of every whole record; stops before a torn or damaged one."""
    offset = 0
    end = len(untrusted_data)
    while offset + HEADER.size <= end:
        stream, length, time_ns = HEADER.unpack_from(untrusted_data, offset)
        if length > MAX_PAYLOAD_BYTES or stream not in (STDOUT, STDERR):
            return
        stop = offset + HEADER.size + length
        if stop > end:
            return
        yield stream, time_ns, untrusted_data[offset + HEADER.size : stop], stop
        offset = stop
