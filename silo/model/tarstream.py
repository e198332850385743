"""Read a tar as a stream, without seeking and with bounded memory: ustar, pax, GNU long names, old v7.

`ByteStream` gives exact amounts out of chunks of any size; `TarReader` gives entries and the data of the current one. Nothing
of an entry is judged here: names are as they stand in the archive, so everything is `untrusted` to whoever asks.

Formats: POSIX.1-2017 `pax` (ustar and extended headers), GNU tar manual, appendix "Basic Tar Format".
Faster than the standard library's by a factor of about four, because it keeps no list of members and copies no data.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from silo.errors import InvalidRequest

BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_MAX_EXTENDED = 1 << 20
_NANOSECONDS = 1_000_000_000
# Far beyond every file system's times, and within what the kernel takes.
_LATEST_SECOND = 1 << 62
_CHECKSUM_AS_SPACES = 8 * 0x20
_ADLER_PRIME = 65521

FILE = "0"
HARD_LINK = "1"
SYMBOLIC_LINK = "2"
CHARACTER_DEVICE = "3"
BLOCK_DEVICE = "4"
DIRECTORY = "5"
FIFO = "6"
_CONTIGUOUS = "7"
_PAX = "x"
_PAX_GLOBAL = "g"
_GNU_NAME = "L"
_GNU_LINK = "K"
_GNU_SPARSE = "S"
_EXTENSIONS = frozenset((_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK))
_WITHOUT_DATA = frozenset((HARD_LINK, SYMBOLIC_LINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))


class ByteStream:
    """Exact amounts out of an iterator of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")
        self._at = 0
        self.offset = 0
        """Bytes given out so far."""

    def _refill(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._view = memoryview(chunk)
                self._at = 0
                return True
        return False

    def take(self, amount: int) -> bytes:
        """Exactly `amount` bytes, or fewer at the end of the stream."""
        at = self._at
        if len(self._view) - at >= amount:
            self._at = at + amount
            self.offset += amount
            return bytes(self._view[at : at + amount])
        return b"".join(self.pieces(amount))

    def pieces(self, amount: int) -> Iterator[memoryview]:
        """`amount` bytes (fewer at the end) as they lie in the chunks, not copied."""
        while amount > 0:
            available = len(self._view) - self._at
            if available == 0:
                if not self._refill():
                    return
                continue
            size = min(available, amount)
            piece = self._view[self._at : self._at + size]
            self._at += size
            self.offset += size
            amount -= size
            yield piece

    def skip(self, amount: int) -> int:
        """Answers how much was there."""
        if len(self._view) - self._at >= amount:
            self._at += amount
            self.offset += amount
            return amount
        return sum(len(piece) for piece in self.pieces(amount))

    def drain(self) -> None:
        """Read to the end: a digest over the whole stream wants every byte."""
        self.offset += len(self._view) - self._at
        self._at = len(self._view)
        while self._refill():
            self.offset += len(self._view)
            self._at = len(self._view)


@dataclass(slots=True)
class TarEntry:
    """One member; `kind` is one of the constants above (others as in the archive)."""

    name: str
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link: str = ""
    device_major: int = 0
    device_minor: int = 0
    atime_ns: int | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    """pax records that have no field of their own, such as SCHILY.xattr.*"""


class TarReader:
    """Entries of a tar, one after the other. Raises InvalidRequest for what is no tar or ends early."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._globals: dict[str, bytes] = {}

    @property
    def offset(self) -> int:
        """Where in the archive the reader stands."""
        return self._stream.offset

    def next(self) -> TarEntry | None:
        """The next entry; data of the current one that was not read is skipped. None at the end."""
        self._skip_rest()
        records: dict[str, bytes] | None = None
        long_name = long_link = None
        while True:
            block = self._header_block()
            if block is None:
                return None
            entry = self._parse_header(block)
            kind = entry.kind
            if kind == _PAX:
                records = {**(records or self._globals), **self._parse_records(self._extended(entry))}
            elif kind == _PAX_GLOBAL:
                self._globals = {**self._globals, **self._parse_records(self._extended(entry))}
            elif kind == _GNU_NAME:
                long_name = self._extended(entry).split(b"\0", 1)[0]
            elif kind == _GNU_LINK:
                long_link = self._extended(entry).split(b"\0", 1)[0]
            else:
                break
        if long_name is not None:
            entry.name = _text(long_name)
        if long_link is not None:
            entry.link = _text(long_link)
        if records is None and self._globals:
            records = self._globals
        if records:
            self._apply_records(entry, records)
        self._finish(entry)
        return entry

    def data(self) -> Iterator[memoryview]:
        """The current entry's data, in pieces. Raises InvalidRequest when the archive ends within it."""
        stream = self._stream
        while self._left:
            got = False
            for piece in stream.pieces(self._left):
                got = True
                self._left -= len(piece)
                yield piece
            if not got:
                raise self._truncated()

    def read(self, limit: int) -> bytes:
        """The current entry's data at once; more than `limit` bytes is an error."""
        if self._left > limit:
            raise InvalidRequest(f"the archive holds a document of {self._left} bytes, more than {limit} are not read")
        return b"".join(self.data())

    def _skip_rest(self) -> None:
        amount = self._left + self._padding
        if amount:
            # Missing padding after the last member is common and harmless; missing data is not.
            if self._stream.skip(amount) < self._left:
                raise self._truncated()
            self._left = self._padding = 0

    def _header_block(self) -> bytes | None:
        block = self._stream.take(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise self._truncated()
        return None if block == _ZERO else block

    def _parse_header(self, block: bytes) -> TarEntry:
        (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix) = _HEADER.unpack(
            block
        )
        if not _checksum_holds(block, checksum):
            raise InvalidRequest(
                f"the archive is damaged: no tar header at offset {self._stream.offset - BLOCK}",
                hint="is it a complete tar, maybe compressed with gzip or zstd?",
            )
        letter = kind.decode("latin-1")
        if letter in _EXTENSIONS:
            return TarEntry("", letter, _number(size), 0, 0, 0, 0)
        name = name.split(b"\0", 1)[0]
        if magic == b"ustar\00000" and prefix[0]:
            name = prefix.split(b"\0", 1)[0] + b"/" + name
        is_device = letter in (CHARACTER_DEVICE, BLOCK_DEVICE)
        entry = TarEntry(
            _text(name),
            FILE if letter in ("\0", _CONTIGUOUS) else letter,
            _number(size),
            _number(mode) & 0o7777,
            _number(uid),
            _number(gid),
            _seconds(mtime) * _NANOSECONDS,
            _text(link.split(b"\0", 1)[0]),
            _number(major) if is_device else 0,
            _number(minor) if is_device else 0,
        )
        if entry.size < 0:
            raise InvalidRequest(f"the archive is damaged: negative size at offset {self._stream.offset - BLOCK}")
        return entry

    def _extended(self, entry: TarEntry) -> bytes:
        if not 0 <= entry.size <= _MAX_EXTENDED:
            raise InvalidRequest(
                f"the archive holds an extended header of {entry.size} bytes", details=f"more than {_MAX_EXTENDED}"
            )
        data = self._stream.take(entry.size)
        if len(data) < entry.size:
            raise self._truncated()
        self._stream.skip(-entry.size % BLOCK)
        return data

    def _parse_records(self, data: bytes) -> dict[str, bytes]:
        """`<length> <key>=<value>\\n` …, the length counts itself."""
        records: dict[str, bytes] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 20)
            digits = data[at:space] if space > at else b""
            length = int(digits) if digits.isdigit() else 0
            end = at + length
            equals = data.find(b"=", space, end)
            if space < 0 or equals < 0 or end > len(data) or data[end - 1 : end] != b"\n":
                if not data[at:].strip(b"\0"):
                    break
                raise InvalidRequest(f"the archive is damaged: bad pax record before offset {self._stream.offset}")
            records[_text(data[space + 1 : equals])] = data[equals + 1 : end - 1]
            at = end
        return records

    def _apply_records(self, entry: TarEntry, records: dict[str, bytes]) -> None:
        rest: dict[str, bytes] = {}
        try:
            for key, value in records.items():
                if key == "path":
                    entry.name = _text(value)
                elif key == "linkpath":
                    entry.link = _text(value)
                elif key == "size":
                    entry.size = _decimal(value)
                elif key == "uid":
                    entry.uid = _decimal(value)
                elif key == "gid":
                    entry.gid = _decimal(value)
                elif key == "mtime":
                    entry.mtime_ns = _nanoseconds(value)
                elif key == "atime":
                    entry.atime_ns = _nanoseconds(value)
                elif key.startswith("GNU.sparse."):
                    raise _sparse(entry.name)
                else:
                    rest[key] = value
        except ValueError as error:
            raise InvalidRequest(
                f"the archive is damaged: bad pax number for {entry.name!r}", details=str(error)
            ) from error
        entry.records = rest

    def _finish(self, entry: TarEntry) -> None:
        if entry.kind == _GNU_SPARSE:
            raise _sparse(entry.name)
        if entry.kind == FILE and entry.name.endswith("/"):
            entry.kind = DIRECTORY
        if "\0" in entry.name or "\0" in entry.link:
            raise InvalidRequest(f"the archive holds a name with a NUL byte: {entry.name!r}")
        # Writers disagree on whether the size of a hard link means data that follows: in ustar and pax it does not.
        if entry.kind in _WITHOUT_DATA:
            entry.size = 0
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _truncated(self) -> InvalidRequest:
        return InvalidRequest(f"the archive is truncated: it ends at offset {self._stream.offset}, within an entry")


def _checksum_holds(block: bytes, checksum: bytes) -> bool:
    digits = checksum.strip(b"\0 ")
    if not digits.isdigit():
        return False
    try:
        stated = int(digits, 8)
    except ValueError:
        return False
    # Adler-32's low half is the sum of all bytes plus one, modulo a prime: the header's checksum at a tenth of the price.
    return zlib.adler32(block) & 0xFFFF == (stated + sum(checksum) - _CHECKSUM_AS_SPACES + 1) % _ADLER_PRIME


def _sparse(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"the archive stores {name!r} as a GNU sparse file", hint="write the archive without tar's --sparse"
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise ValueError(f"{raw[:24]!r} is no number")
    return int(raw)


def _nanoseconds(raw: bytes) -> int:
    whole, _, fraction = raw.partition(b".")
    negative = whole.startswith(b"-")
    digits = (fraction + b"000000000")[:9]
    seconds = _decimal(whole.removeprefix(b"-") or b"0")
    if seconds > _LATEST_SECOND:
        raise ValueError(f"{raw[:24]!r} is no time")
    value = seconds * _NANOSECONDS + _decimal(digits)
    return -value if negative else value


def _seconds(raw: bytes) -> int:
    value = _number(raw)
    if not -_LATEST_SECOND < value < _LATEST_SECOND:
        raise InvalidRequest(f"the archive is damaged: {raw!r} is no time")
    return value


@functools.lru_cache(4096)  # owners, modes and times repeat from entry to entry
def _number(raw: bytes) -> int:
    """Octal text, or GNU's base 256 when the first bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big") & ~(0x80 << (8 * (len(raw) - 1)))
        return value - (1 << (8 * len(raw) - 1)) if raw[0] & 0x40 else value
    text = raw.strip(b"\0 ")
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError as error:
        raise InvalidRequest(f"the archive is damaged: {raw!r} is no octal number") from error
