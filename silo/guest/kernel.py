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

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_MOVE_EMPTY_PATHS = 0x44
_ATTRIBUTE_READ_ONLY = 1
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000

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


def clone_tree(source: str, *, read_only: bool) -> int:
    """What is mounted at `source`, with all that is mounted in it, as a tree that is mounted nowhere yet."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    tree: int = _libc.syscall(
        ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_long(-1), os.fsencode(source), ctypes.c_ulong(flags)
    )
    _check(tree, "open_tree", source)
    if read_only:
        wanted = struct.pack("=QQQQ", _ATTRIBUTE_READ_ONLY, 0, 0, 0)
        result = _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_long(tree),
            b"",
            ctypes.c_ulong(_AT_EMPTY_PATH | _AT_RECURSIVE),
            wanted,
            ctypes.c_size_t(len(wanted)),
        )
        _check(result, "mount_setattr", source)
    return tree


def move_mount(tree: int, place: int) -> None:
    """Mount a tree on what `place` (O_PATH) is open on."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_long(tree),
        b"",
        ctypes.c_long(place),
        b"",
        ctypes.c_ulong(_MOVE_EMPTY_PATHS),
    )
    _check(result, "move_mount")


def join_mounts(namespace: int) -> None:
    """This thread alone sees another mount namespace from now on; it has no way back."""
    _check(_libc.unshare(_CLONE_FS), "unshare(CLONE_FS)")
    _check(_libc.setns(namespace, _CLONE_NEWNS), "setns(CLONE_NEWNS)")


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
