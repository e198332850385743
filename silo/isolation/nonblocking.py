"""Nonblocking descriptors in asyncio, without transports: what is read and written is known at each step."""

from __future__ import annotations

import asyncio
import os


async def read_some(descriptor: int, size: int) -> bytes:
    """At least one byte, or b"" at the end. Raises OSError."""
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:
            await until_ready(descriptor, writable=False)


async def write_all(descriptor: int, data: bytes) -> None:
    """Raises OSError when nobody reads it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await until_ready(descriptor, writable=True)


async def until_ready(descriptor: int, *, writable: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, note)
    try:
        await ready
    finally:
        remove(descriptor)
