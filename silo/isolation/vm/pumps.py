"""Between a guest's streams and descriptors of the host, which is what the engine and its clients read and write."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Protocol

from silo.errors import SiloError
from silo.isolation.nonblocking import read_some, write_all
from silo.isolation.vm.agent_streams import GuestReader

PIECE_BYTES = 65536
_SETTLE_S = 0.2


class Sink(Protocol):
    """A program's input in a guest."""

    async def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Inlet:
    """The input of a program: any number of descriptors may write to it; its end is when all of them are closed.

    `open` gives one out; `finish` says that no more will be given.
    """

    def __init__(self, writer: Sink) -> None:
        self._writer = writer
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pumping = asyncio.create_task(self._pump(), name="guest-input")

    def open(self) -> int:
        """A nonblocking descriptor, the caller's to close; -1 after `finish`."""
        return os.dup(self._write) if self._write >= 0 else -1

    def finish(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    async def settle(self) -> None:
        """After `finish`: the guest has heard of the end, unless others still hold descriptors."""
        await asyncio.wait({self._pumping}, timeout=_SETTLE_S)

    def close(self) -> None:
        self.finish()
        self._pumping.cancel()

    async def _pump(self) -> None:
        try:
            await copy_in(self._read, self._writer)
        finally:
            os.close(self._read)


async def copy_in(descriptor: int, writer: Sink) -> None:
    """From a nonblocking descriptor to the guest, to the end of file; then the program's input ends too."""
    with contextlib.suppress(SiloError, OSError):
        while piece := await read_some(descriptor, PIECE_BYTES):
            await writer.write(piece)
    writer.close()


async def copy_out(reader: GuestReader, descriptor: int) -> bool:
    """From the guest to a nonblocking descriptor, to the end; False when nobody reads it any more."""
    with contextlib.suppress(SiloError):
        while piece := await reader.read():
            try:
                await write_all(descriptor, piece)
            except OSError:
                return False
    return True
