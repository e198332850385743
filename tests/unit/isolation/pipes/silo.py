"""A launcher made of a socket: what the host says to it, and a word for each thing that it may say."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable


class FakeSilo:
    """One mapping. `received` are the packets after PIPE, as (type, number or flag, descriptors)."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.opened = b""

    async def dial(self) -> socket.socket:
        return self.theirs

    async def accept(self) -> None:
        """Take PIPE and say that it is done."""
        self.opened = (await self.packet())[0]
        self.ours.send(b"\x80")

    async def packet(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.ours, 4096, 4)
            except BlockingIOError:
                await asyncio.sleep(0.001)
            else:
                return data, descriptors

    async def order(self) -> tuple[int, int, list[int]]:
        async with asyncio.timeout(5):
            data, descriptors = await self.packet()
        number = struct.unpack("<I", data[1:])[0] if len(data) == 5 else data[1]
        return data[0], number, descriptors

    def say_served(self, now: bool) -> None:
        self.ours.send(bytes((133, now)))

    def say_client(self, number: int) -> None:
        self.ours.send(struct.pack("<BI", 134, number))

    def say_ended(self, number: int) -> None:
        self.ours.send(struct.pack("<BI", 135, number))

    def is_silent(self) -> bool:
        try:
            self.ours.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.ours.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def read_all(descriptor: int) -> bytes:
    """To the end of file, in a thread."""
    pieces = []
    while data := await asyncio.to_thread(os.read, descriptor, 65536):
        pieces.append(data)
    return b"".join(pieces)


def frame(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data
