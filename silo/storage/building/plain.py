"""Tar archives of unknown compression as plain, bounded streams: contexts, and what ADD unpacks."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard
from isal import igzip, isal_zlib

from silo.errors import InvalidRequest
from silo.host.durable import free_bytes, host_error

MAXIMUM_BYTES = 64 << 30
"""Of an unpacked context or added archive."""
MAXIMUM_ENTRIES = 2_000_000
_RESERVE_BYTES = 64 << 20
_ROOM_CHECK_BYTES = 64 << 20
_SNIFFED_BYTES = 6
_ZSTD_WINDOW = 1 << 27
_BUFFER_BYTES = 256 * 1024
# the stubs of isal declare an instance where the module has the class
_GZIP_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_DAMAGE: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, _GZIP_ERROR)
_NO_ARCHIVE: tuple[type[Exception], ...] = (*_DAMAGE, tarfile.TarError, OSError, ValueError, OverflowError)


class PlainStream(io.RawIOBase):
    """The uncompressed bytes of a file, with a bound and an eye on the disk that they are written to."""

    def __init__(self, source: BinaryIO, disk: Path, check: Callable[[], None]) -> None:
        """`check` is asked now and then, and raises when the operation was cancelled."""
        super().__init__()
        self._disk = disk
        self._check = check
        self._read_bytes = 0
        self._next_room_check = 0
        peeked = source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, source))
        self._plain = _decompressed(peeked, peeked.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._check()
        try:
            data = self._plain.read(len(buffer))
        except _DAMAGE as error:
            raise InvalidRequest("the archive is damaged or truncated", details=str(error)) from error
        except OSError as error:
            # gzip's and bzip2's own words for damage have no errno
            if error.errno is not None:
                raise
            raise InvalidRequest("the archive is damaged or truncated", details=str(error)) from error
        buffer[: len(data)] = data
        self._count(len(data))
        return len(data)

    def _count(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > MAXIMUM_BYTES:
            raise InvalidRequest(f"the archive unpacks to more than {MAXIMUM_BYTES >> 30} GiB")
        if self._read_bytes >= self._next_room_check:
            self._next_room_check = self._read_bytes + _ROOM_CHECK_BYTES
            if free_bytes(self._disk) < _RESERVE_BYTES + _ROOM_CHECK_BYTES:
                raise host_error(OSError(28, "No space left on device"), "the archive does not fit on the disk")


def open_plain(source: BinaryIO, disk: Path, check: Callable[[], None]) -> io.BufferedReader:
    """`source` is read from its present place on; gzip, bzip2, xz, zstd or nothing is found out from its first bytes."""
    return io.BufferedReader(PlainStream(source, disk, check), _BUFFER_BYTES)


def is_archive(file: BinaryIO) -> bool:
    """Whether a file is a tar, compressed or not, judged by its first header. The file is left at its beginning."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=_decompressed(io.BufferedReader(_Borrowed(file)), _head(file)), mode="r|") as archive:
            return archive.next() is not None
    except _NO_ARCHIVE:
        return False
    finally:
        file.seek(0)


def _head(file: BinaryIO) -> bytes:
    head = file.read(_SNIFFED_BYTES)
    file.seek(0)
    return head


def _decompressed(source: io.BufferedReader, head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], igzip.IGzipFile(fileobj=source, mode="rb"))  # type: ignore[no-untyped-call]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(source)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return cast(IO[bytes], decompressor.stream_reader(source, read_across_frames=True))
    return source


class _Borrowed(io.RawIOBase):
    """A file whose reader may be closed without closing it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
