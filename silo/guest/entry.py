"""A Linux container that is begun ahead of its order: its process is a small program that waits (silo/linux/entry/entry.c) and
becomes what it is told to. Imported when a container has one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from silo.guest.failures import Refused
from silo.guest.loop import READ, Loop

FIRST = 3
"""The descriptors that it finds: the order, the answer, itself."""
WORDS = (f"/proc/self/fd/{FIRST + 2}",)
_PIPE_BYTES = 1 << 20
MAXIMUM_ORDER_BYTES = _PIPE_BYTES - 4


def encode_order(args: list[str], env: list[str]) -> bytes:
    """Raises Refused for what cannot be passed on."""
    words = [os.fsencode(word) for word in (*args, *env)]
    if any(b"\0" in word for word in words):
        raise Refused("invalid", "a NUL character cannot be passed to a program")
    body = struct.pack("<II", len(args), len(env)) + b"".join(word + b"\0" for word in words)
    if len(body) > MAXIMUM_ORDER_BYTES:
        raise Refused("limit", "arguments and environment are too long for a container that was begun ahead")
    return struct.pack("<I", len(body)) + body


def refusal(number: int, program: str) -> Refused:
    """Why the kernel did not take the program."""
    words = f"exec: {program!r}: {os.strerror(number)}"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return Refused("not_found", words)
    if number in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return Refused("permission", words)
    if number in (errno.ENOEXEC, errno.EINVAL):
        return Refused("not_executable", words)
    return Refused("runtime", words)


class Entry:
    """Of one container. `passed` are the process's descriptors from FIRST on, the starter's to close."""

    def __init__(self, loop: Loop, place: str) -> None:
        self._loop = loop
        program = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        order, self._order = os.pipe2(os.O_CLOEXEC)
        self._answer, answer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # room for the largest order: nobody waits until it is read
        fcntl.fcntl(self._order, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.passed = [order, answer, program]

    def enter(self, order: bytes, answered: Callable[[int], None]) -> None:
        """Once. `answered` gets the errno, 0 when the process has become the program (or is gone)."""
        if self._order < 0:
            raise Refused("conflict", "the container has its program already")
        descriptor, self._order = self._order, -1
        try:
            os.write(descriptor, order)
        finally:
            os.close(descriptor)

        def readable() -> None:
            told = os.read(self._answer, 4)
            self._loop.unwatch(self._answer)
            answered(struct.unpack("<i", told)[0] if len(told) == 4 else 0)

        self._loop.watch(self._answer, READ, readable)

    def close(self) -> None:
        for descriptor in (self._order, self._answer):
            if descriptor >= 0:
                self._loop.unwatch(descriptor)
                os.close(descriptor)
        self._order = self._answer = -1
