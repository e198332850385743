"""Bytes between a socket of the host and the two Unix pipes that lead to a program in a silo.

On the pipes every message has its length before it; on the socket there are bytes only. Both ways at most one piece is held, so
each side waits for the other. A message of no bytes and the end of one direction of the socket are each other: that is how
programs of Windows say on a pipe that they have no more to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket

from silo.errors import GuestError
from silo.isolation.pipes.messages import HEADER, MAXIMUM_FRAME_BYTES

_PIECE_BYTES = 65536


async def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Until either end is closed. Takes over all three; frames come from `source` and go to `sink`. Raises GuestError."""
    for descriptor in (source, sink):
        os.set_blocking(descriptor, False)
    connection.setblocking(False)
    inward = asyncio.create_task(_inward(connection, sink))
    outward = asyncio.create_task(_outward(source, connection))
    hangup = asyncio.create_task(_hangup(connection))
    try:
        # What the host's program wrote before it closed its socket still arrives; what is written to it then does not.
        await asyncio.wait({outward, hangup}, return_when=asyncio.FIRST_COMPLETED)
        if not outward.done() or (outward.exception() is None and outward.result()):
            await asyncio.wait({inward})
        for task in (outward, inward):
            if task.done() and (error := task.exception()) is not None:
                raise error
    finally:
        tasks = (inward, outward, hangup)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection.close()
        os.close(source)
        os.close(sink)


async def _inward(connection: socket.socket, sink: int) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while True:
            data = await loop.sock_recv(connection, _PIECE_BYTES)
            if not data and _is_hung_up(connection):
                return
            await _write(sink, HEADER.pack(len(data)) + data)
            if not data:
                return


async def _outward(source: int, connection: socket.socket) -> bool:
    """True when it is the socket that takes no more."""
    loop = asyncio.get_running_loop()
    while True:
        header = await _read_whole(source, HEADER.size)
        if header is None:
            return False
        (left,) = HEADER.unpack(header)
        if left > MAXIMUM_FRAME_BYTES:
            raise GuestError(f"a message of {left} bytes came through a pipe: at most {MAXIMUM_FRAME_BYTES} can be")
        try:
            if not left:
                connection.shutdown(socket.SHUT_WR)
            while left:
                untrusted_data = await _read(source, min(left, _PIECE_BYTES))
                if not untrusted_data:
                    return False
                left -= len(untrusted_data)
                await loop.sock_sendall(connection, untrusted_data)
        except OSError:
            return True


def _is_hung_up(connection: socket.socket) -> bool:
    state = select.poll()
    state.register(connection, 0)
    return bool(state.poll(0))


async def _hangup(connection: socket.socket) -> None:
    """Until the other end of the socket is closed for both directions."""
    with select.epoll() as both:
        both.register(connection, 0)
        await _ready(both.fileno(), write=False)


async def _read_whole(source: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = await _read(source, size - len(data))
        if not piece:
            return None
        data += piece
    return data


async def _read(source: int, size: int) -> bytes:
    while True:
        try:
            return os.read(source, size)
        except BlockingIOError:
            await _ready(source, write=False)


async def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(sink, view) :]
        except BlockingIOError:
            await _ready(sink, write=True)


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)
