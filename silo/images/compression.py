"""Decompress a stream, its kind found out from its first bytes; memory stays bounded.

Layers are gzip (isal), zstd or plain; archives that users bring to `load` and `import` may be xz or bzip2 as well.

Concatenated gzip members and zstd frames are one stream, as for the command line tools; what follows the last of them must be
padding of zeros.
"""

from __future__ import annotations

import bz2
import enum
import itertools
import lzma
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import IO, cast

import zstandard
from isal import isal_zlib

from silo.errors import InvalidRequest

# the stubs of isal declare an instance where the module has the class
_GZIP_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_XZ_MAGIC = b"\xfd7zXZ\0"
_BZIP2_MAGIC = b"BZh"
_ZIP_MAGIC = b"PK\x03\x04"
_GZIP_WINDOW = 31  # 15 bits of window, 16: expect a gzip header
_OUTPUT = 1 << 20
# What `zstd --long=27` writes is the most that decoders accept by default.
_ZSTD_WINDOW = 1 << 27
_SNIFFED = 6
_XZ_MEMORY = 128 << 20


class Compression(enum.Enum):
    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


def detect_compression(head: bytes) -> Compression:
    """From the first bytes. Raises InvalidRequest for a zip file, which users may take for an archive that does."""
    if head.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if head.startswith(_ZSTD_MAGIC):
        return Compression.ZSTD
    if head.startswith(_XZ_MAGIC):
        return Compression.XZ
    if head.startswith(_BZIP2_MAGIC) and head[3:4].isdigit():
        return Compression.BZIP2
    if head.startswith(_ZIP_MAGIC):
        raise InvalidRequest("this is a zip file", hint="pack it as a tar, compressed by gzip or zstd or not at all")
    return Compression.NONE


def is_layer_compression(head: bytes) -> bool:
    """Whether manifests have a media type for layers packed so."""
    return detect_compression(head) in (Compression.NONE, Compression.GZIP, Compression.ZSTD)


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The plain bytes of a stream. Raises InvalidRequest when it is damaged or ends early."""
    iterator = iter(chunks)
    head = b""
    for chunk in iterator:
        head += chunk
        if len(head) >= _SNIFFED:
            break
    kind = detect_compression(head)
    if kind is Compression.GZIP:
        return _gunzip(head, iterator)
    if kind is Compression.ZSTD:
        return _unzstd(head, iterator)
    if kind is Compression.XZ:
        return _unpack_slowly(head, iterator, "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
    if kind is Compression.BZIP2:
        return _unpack_slowly(head, iterator, "bzip2", bz2.BZ2Decompressor)
    return _chain(head, iterator)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _gunzip(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    engine = isal_zlib.decompressobj(_GZIP_WINDOW)
    started = False
    for chunk in _chain(head, rest):
        pending = chunk
        while pending:
            if not started:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                engine = isal_zlib.decompressobj(_GZIP_WINDOW)
                started = True
            try:
                plain: bytes = engine.decompress(pending, _OUTPUT)
            except _GZIP_ERROR as error:
                raise InvalidRequest("the gzip stream is damaged", details=str(error)) from error
            if plain:
                yield plain
            if engine.eof:
                started = False
                pending = engine.unused_data
            else:
                pending = engine.unconsumed_tail
    if started:
        raise InvalidRequest("the gzip stream is truncated")


def _unzstd(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    # The decoder that bounds its output does not tell a finished stream from a truncated one. So a frame of our own follows
    # the input: its content comes out at the end exactly if the frame before it was complete.
    mark = secrets.token_bytes(16)
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(mark)
    source = cast(IO[bytes], _Reader(head, itertools.chain(rest, (frame,))))
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    held = b""
    try:
        with decompressor.stream_reader(source, read_across_frames=True, read_size=_OUTPUT // 8) as reader:
            while plain := reader.read(_OUTPUT):
                plain = held + plain
                held = plain[-len(mark) :]
                if len(plain) > len(mark):
                    yield plain[: -len(mark)]
    except zstandard.ZstdError as error:
        raise InvalidRequest("the zstd stream is damaged or truncated", details=str(error)) from error
    if held != mark:
        raise InvalidRequest("the zstd stream is truncated")


def _unpack_slowly(
    head: bytes, rest: Iterator[bytes], name: str, make: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]
) -> Iterator[bytes]:
    engine = make()
    begun = False
    for chunk in _chain(head, rest):
        pending = chunk
        while pending or (begun and not engine.needs_input):
            if not begun:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                engine, begun = make(), True
            try:
                plain = engine.decompress(pending, _OUTPUT)
            except (lzma.LZMAError, OSError, ValueError) as error:
                raise InvalidRequest(f"the {name} stream is damaged", details=str(error)) from error
            pending = b""
            if plain:
                yield plain
            if engine.eof:
                begun = False
                pending = engine.unused_data
    if begun:
        raise InvalidRequest(f"the {name} stream is truncated")


class _Reader:
    """The little of a file object that zstandard asks for."""

    def __init__(self, head: bytes, rest: Iterator[bytes]) -> None:
        self._pending = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        while not self._pending:
            chunk = next(self._rest, None)
            if chunk is None:
                return b""
            self._pending = chunk
        answer, self._pending = self._pending[:size], self._pending[size:]
        return answer


def gzip_pieces(chunks: Iterable[bytes], *, level: int = 1) -> Iterator[bytes]:
    """Compress reproducibly: no name and no time in the header."""
    engine = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _GZIP_WINDOW)
    for chunk in chunks:
        packed: bytes = engine.compress(chunk)
        if packed:
            yield packed
    yield engine.flush()
