"""System calls that Python 3.11 lacks, called through ctypes: one place for numbers, argument types and errno.

Numbers of calls added since Linux 5.1 are the same on all architectures (`include/uapi/asm-generic/unistd.h`). ctypes releases
the interpreter lock for the call, so threads may block here.
"""

from __future__ import annotations

import ctypes
import os

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_MOUNT_SETATTR = 442
SYS_OPENAT2 = 437

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None


def _convert(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    return ctypes.byref(argument)


def _checked(result: int, what: str, subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", subject or None)
    return result


def syscall(number: int, *arguments: Argument, what: str, subject: str = "") -> int:
    """Call by number; raises OSError naming `what` and `subject`."""
    return _checked(int(_libc.syscall(ctypes.c_long(number), *map(_convert, arguments))), what, subject)


def libc(name: str, *arguments: Argument, subject: str = "") -> int:
    """Call a function of the C library that answers -1 and errno on failure."""
    return _checked(int(getattr(_libc, name)(*map(_convert, arguments))), name, subject)


def libc_quiet(name: str, *arguments: Argument) -> int:
    """Call a function of the C library whose result is not an error code (setfsuid)."""
    return int(getattr(_libc, name)(*map(_convert, arguments)))


def peek_pipe(descriptor: int, *, maximum_bytes: int = 4096) -> bytes:
    """What lies in a pipe, without taking it out (tee(2)); b"" when nothing does."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        nonblocking = 2
        count = _libc.tee(ctypes.c_int(descriptor), ctypes.c_int(write), ctypes.c_size_t(maximum_bytes), nonblocking)
        return os.read(read, count) if count > 0 else b""
    finally:
        os.close(read)
        os.close(write)
