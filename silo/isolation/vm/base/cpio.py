"""Write a cpio archive that the kernel unpacks as its first root: the same entries give the same bytes.

Times, owners and inode numbers come from the caller or the order of the entries, never from a file system.

Format: "newc" (SVR4 without check sums), Linux Documentation/driver-api/early-userspace/buffer-format.rst: a magic of 6
characters, 13 numbers of 8 hexadecimal digits, the name with a NUL, the contents; header with name and contents are each padded
to a multiple of 4.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = b"070701"
_END = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `path` is relative, `mode` is as in st_mode, `data` is a file's contents or a link's target.

    `device` (major, minor) counts for device nodes only.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 4)


def _encoded(entry: Entry, *, inode: int, time_s: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino mode uid gid nlink mtime filesize dev-major dev-minor rdev-major rdev-minor namesize check
    fields = (inode, entry.mode, 0, 0, links, time_s, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return head + _padding(len(head)) + entry.data + _padding(len(entry.data))


def write_cpio(target: BinaryIO, entries: Iterable[Entry], *, time_s: int) -> int:
    """Write the entries in their order (a directory before what is in it), all of `time_s`; returns the size in bytes."""
    size = 0
    for number, entry in enumerate(entries, start=1):
        size += target.write(_encoded(entry, inode=number, time_s=time_s))
    return size + target.write(_encoded(Entry(_END, 0), inode=0, time_s=0))
