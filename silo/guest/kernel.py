"""System calls that Python lacks, through ctypes; failures are OSError.

Sources: `include/uapi/linux/{mount,openat2,random,reboot,prctl}.h`. Numbers of calls since Linux 5.1 are the same everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
# the kernel answers EAGAIN when a rename anywhere raced with a `..` of this path
_RETRIES = 32

_PR_SET_CHILD_SUBREAPER = 36
_RB_POWER_OFF = 0x4321FEDC
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207

MOUNT_FLAGS = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "remount": 0x20,
    "noatime": 0x400,
    "bind": 0x1000,
    "rec": 0x4000,
    "private": 0x40000,
    "slave": 0x80000,
    "shared": 0x100000,
    "relatime": 0x200000,
}


def _check(result: int, what: str, subject: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", subject or None)
    return result


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    words = [os.fsencode(word) or None for word in (source, target, fstype, data)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount {fstype or 'bind'}", target)


def unmount(target: str, *, lazy: bool) -> None:
    _check(_libc.umount2(os.fsencode(target), 2 if lazy else 0), "umount", target)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open as a process with that root would, links included, never leaving it."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    encoded = os.fsencode(path.lstrip("/") or ".")
    if b"\0" in encoded:
        raise ValueError("a path holds a NUL byte")
    number = 0
    for _ in range(_RETRIES):
        descriptor: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2), ctypes.c_long(root), encoded, how, ctypes.c_size_t(len(how))
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def become_subreaper() -> None:
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def power_off() -> None:
    _check(_libc.reboot(ctypes.c_int(_RB_POWER_OFF)), "reboot")


def add_entropy(seed: bytes) -> None:
    """Mix it in, credit it, and make the generator start from it at once: clones of one template share the old state."""
    descriptor = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(descriptor, _RNDRESEEDCRNG)
    finally:
        os.close(descriptor)
