"""Bytes of a local descriptor in pieces, for bodies that are streamed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 256 * 1024


def read_chunks(descriptor: int) -> Iterator[bytes]:
    while data := os.read(descriptor, CHUNK_BYTES):
        yield data
