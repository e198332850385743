"""Pipes and terminals on the event loop: nonblocking reads and writes of descriptors that the engine owns."""

from __future__ import annotations

import asyncio
import errno
import os

CHUNK_BYTES = 65536


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    (loop.add_writer if write else loop.add_reader)(fd, wake)
    try:
        await waiter
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)


class Reader:
    """Reads one descriptor to its end and closes it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def read(self) -> bytes:
        """The next bytes; b"" at the end (also when a terminal's other side is gone)."""
        while True:
            try:
                return os.read(self._fd, CHUNK_BYTES)
            except BlockingIOError:
                await _ready(self._fd, write=False)
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""
                raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Writer:
    """Writes one descriptor with back-pressure; what a reader no longer wants is dropped, as a shell's pipe would."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await _ready(self._fd, write=True)
            except (BrokenPipeError, ConnectionResetError):
                return
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
