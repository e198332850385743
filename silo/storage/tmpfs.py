"""Options of a tmpfs, from Docker's words: Docker's defaults, every word checked, contradictions decided by the last."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from silo.errors import InvalidRequest

# word → the words it takes the place of
_FLAGS = {
    "exec": "noexec",
    "noexec": "exec",
    "suid": "nosuid",
    "nosuid": "suid",
    "dev": "nodev",
    "nodev": "dev",
    "ro": "rw",
    "rw": "ro",
    "sync": "async",
    "async": "sync",
    "atime": "noatime",
    "noatime": "atime",
    "diratime": "nodiratime",
    "nodiratime": "diratime",
    "relatime": "norelatime",
    "norelatime": "relatime",
    "strictatime": "nostrictatime",
    "nostrictatime": "strictatime",
}
_DATA = {
    "size": re.compile(r"^\d+[kKmMgG%]?$"),
    "mode": re.compile(r"^[0-7]{1,4}$"),
    "uid": re.compile(r"^\d{1,10}$"),
    "gid": re.compile(r"^\d{1,10}$"),
    "nr_inodes": re.compile(r"^\d+[kKmMgG]?$"),
    "nr_blocks": re.compile(r"^\d+[kKmMgG]?$"),
}
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


class TmpfsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`flags` such as nosuid; `data` such as size=1m."""

    flags: tuple[str, ...]
    data: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.flags, *self.data)


def tmpfs_options(*, words: Iterable[str] = (), size_bytes: int = 0, mode: int | None = None) -> TmpfsOptions:
    """noexec, nosuid and nodev unless told otherwise. Raises InvalidRequest naming the first bad word."""
    flags = {"nosuid": True, "nodev": True, "noexec": True}
    data: dict[str, str] = {}
    if size_bytes < 0:
        raise InvalidRequest(f"invalid tmpfs size: {size_bytes}")
    if size_bytes:
        data["size"] = str(size_bytes)
    if mode is not None:
        data["mode"] = f"{mode & 0o7777:o}"
    for word in words:
        name, separator, value = word.partition("=")
        if not word or word in _PROPAGATION:
            continue
        if separator and name in _DATA:
            if not _DATA[name].match(value):
                raise InvalidRequest(f"Invalid tmpfs option {word!r}")
            data[name] = value
        elif not separator and name in _FLAGS:
            flags.pop(_FLAGS[name], None)
            flags[name] = True
        else:
            raise InvalidRequest(f"Invalid tmpfs option {word!r}", hint=f"one of {', '.join((*_DATA, *_FLAGS))}")
    return TmpfsOptions(flags=tuple(flags), data=tuple(f"{name}={value}" for name, value in data.items()))
