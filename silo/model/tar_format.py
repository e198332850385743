"""Tar headers: ustar, with a pax extended header where ustar's fields are too small. Pure; equal input gives equal bytes.

Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Interchange Format".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR_PREFIX = "SCHILY.xattr."

FILE = b"0"
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
DIRECTORY = b"5"
_PAX = b"x"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMBOLIC_LINK,
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: b"6",
}


def build_header(
    name: str,
    status: os.stat_result,
    *,
    owner: tuple[int, int],
    link: str = "",
    hard_link: bool = False,
    attributes: Mapping[str, bytes] | None = None,
) -> bytes:
    """All blocks that stand before an entry's data. `owner` is (uid, gid); directories' names end in a slash."""
    kind = HARD_LINK if hard_link else _KINDS[stat.S_IFMT(status.st_mode)]
    size = status.st_size if kind == FILE else 0
    raw_name = os.fsencode(name + "/" if kind == DIRECTORY and not name.endswith("/") else name)
    raw_link = os.fsencode(link)
    records: list[tuple[bytes, bytes]] = []
    fields = {
        "name": _text(raw_name, 100, b"path", records),
        "mode": _octal(stat.S_IMODE(status.st_mode), 8),
        "uid": _number(owner[0], 8, b"uid", records),
        "gid": _number(owner[1], 8, b"gid", records),
        "size": _number(size, 12, b"size", records),
        "mtime": _number(int(status.st_mtime), 12, b"mtime", records),
        "link": _text(raw_link, 100, b"linkpath", records),
    }
    for key, value in sorted((attributes or {}).items()):
        records.append((XATTR_PREFIX.encode() + key.encode(), value))
    is_device = kind in (b"3", b"4")
    device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0)
    main = _block(fields, kind, device)
    return (_extended(raw_name, records) if records else b"") + main


def build_member(
    name: str,
    kind: bytes,
    *,
    mode: int,
    modified_ns: int,
    size: int = 0,
    link: str = "",
    extended: Mapping[str, bytes] | None = None,
) -> bytes:
    """The same for a member that is no file of this machine: root's, of a name that is taken as it is, with nanoseconds.

    `mode` may hold the type's bits; `extended` are further pax records.
    """
    raw_name, raw_link = os.fsencode(name), os.fsencode(link)
    records: list[tuple[bytes, bytes]] = []
    seconds, rest = divmod(modified_ns, 1_000_000_000)
    fields = {
        "name": _text(raw_name, 100, b"path", records),
        "mode": _octal(mode, 8),
        "uid": _octal(0, 8),
        "gid": _octal(0, 8),
        "size": _number(size, 12, b"size", records),
        "mtime": _octal(seconds if 0 <= seconds < 8**11 else 0, 12),
        "link": _text(raw_link, 100, b"linkpath", records),
    }
    if rest or not 0 <= seconds < 8**11:
        records.append((b"mtime", build_time(modified_ns)))
    records.extend((key.encode(), value) for key, value in sorted((extended or {}).items()))
    return (_extended(raw_name, records) if records else b"") + _block(fields, kind, (0, 0))


def build_time(time_ns: int) -> bytes:
    """Nanoseconds since 1970 as pax writes them: seconds with a fraction, without trailing zeros."""
    seconds, rest = divmod(abs(time_ns), 1_000_000_000)
    text = f"{'-' if time_ns < 0 else ''}{seconds}.{rest:09}"
    return text.rstrip("0").rstrip(".").encode()


def padding(size: int) -> bytes:
    """What fills the last block of data."""
    return bytes(-size % BLOCK)


def build_empty_file(name: str) -> bytes:
    """An empty file of root, such as a whiteout."""
    status = os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    return build_header(name, status, owner=(0, 0))


def _block(fields: Mapping[str, bytes], kind: bytes, device: tuple[int, int]) -> bytes:
    block = b"".join(
        (
            fields["name"].ljust(100, b"\0"),
            fields["mode"],
            fields["uid"],
            fields["gid"],
            fields["size"],
            fields["mtime"],
            b" " * 8,
            kind,
            fields["link"].ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),
            _octal(device[0], 8),
            _octal(device[1], 8),
            bytes(167),
        )
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def _number(number: int, width: int, key: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    if 0 <= number < 8 ** (width - 1):
        return _octal(number, width)
    records.append((key, b"%d" % number))
    return _octal(0, width)


def _text(raw: bytes, width: int, key: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    if len(raw) <= width and raw.isascii():
        return raw
    records.append((key, raw))
    return raw[:width]


def _extended(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    last = bytes(byte if 32 < byte < 127 else 95 for byte in name.rstrip(b"/").rpartition(b"/")[2][:80])
    fields = {
        "name": b"PaxHeaders/" + last,
        "mode": _octal(0o644, 8),
        "uid": _octal(0, 8),
        "gid": _octal(0, 8),
        "size": _octal(len(data), 12),
        "mtime": _octal(0, 12),
        "link": b"",
    }
    return _block(fields, _PAX, (0, 0)) + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
