"""Small files of the guest, read and written whole in one request: /etc/passwd of a container, its hosts file, cgroup limits."""

from __future__ import annotations

import contextlib
import errno
import os
from binascii import a2b_base64, b2a_base64
from typing import Any

from silo.guest.failures import Refused
from silo.guest.kernel import open_in_root
from silo.guest.mounting import make_directories

_MAXIMUM_BYTES = 256 << 10
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_LIMITS = (
    "cgroup.freeze",
    "cpu.max",
    "cpu.weight",
    "memory.high",
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "pids.max",
)


def read_files(root: int, paths: list[str]) -> list[str | None]:
    """Contents in base64, links followed as in a chroot; None for what is no regular file. Refused when one is too large."""
    found: list[str | None] = []
    for path in paths:
        try:
            descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            found.append(None)
            continue
        with open(descriptor, "rb", buffering=0) as file:
            data = b""
            with contextlib.suppress(IsADirectoryError):
                data = file.read(_MAXIMUM_BYTES + 1) or b""
        if len(data) > _MAXIMUM_BYTES:
            raise Refused("limit", f"{path} has more than {_MAXIMUM_BYTES} bytes")
        found.append(b2a_base64(data, newline=False).decode())
    return found


def write_files(entries: list[dict[str, Any]]) -> None:
    """Each: `path`, `data` (base64), `mode`. Written in place, because a container may have the file mounted."""
    for entry in entries:
        path = str(entry["path"])
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            make_directories(root, path.rpartition("/")[0])
        finally:
            os.close(root)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, int(entry.get("mode", 0o644)))
        with open(descriptor, "wb", buffering=0) as file:
            os.fchmod(descriptor, int(entry.get("mode", 0o644)))
            file.write(a2b_base64(str(entry["data"])))


def set_limits(cgroup: str, files: dict[str, str]) -> None:
    """Of a container's cgroup (v2), in the order given."""
    for name, value in files.items():
        if name not in _LIMITS:
            raise Refused("invalid", f"{name!r} is not a limit that can be changed")
        _write(f"{cgroup}/{name}", value)


def set_sysctls(values: dict[str, str]) -> None:
    """Of this guest, which is the container's alone: `net.ipv4.ip_forward` → /proc/sys/net/ipv4/ip_forward."""
    for name, value in values.items():
        parts = name.replace("/", ".").split(".")
        if not all(part and part != ".." for part in parts):
            raise Refused("invalid", f"{name!r} is not a kernel parameter")
        _write(f"/proc/sys/{'/'.join(parts)}", value)


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)
