"""What survives a loss of power, and how much room is left.

One `sync_file_system` after many files are in place, before the row that names them, costs one journal commit; an fsync for each
file would cost one each.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from silo.errors import HostError, NoSpace

_libc = ctypes.CDLL(None, use_errno=True)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def sync_file_system(path: Path) -> None:
    """Everything written so far to the file system of `path` is on the disk (syncfs). Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise host_error(
                OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path)), f"cannot sync {path}"
            )
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Of the kernel: another one after each boot."""
    return _BOOT_ID.read_text().strip()


def free_bytes(path: Path) -> int:
    """What root may still write to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize


def host_error(error: OSError, brief: str) -> HostError:
    """An OSError as Silo's own: NoSpace when the disk or a quota is full."""
    if error.errno in _FULL:
        return NoSpace(f"{brief}: no space left on device", hint="free disk space, e.g. by `silo system prune`")
    return HostError(brief, details=str(error))
