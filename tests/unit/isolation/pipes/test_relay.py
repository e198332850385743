"""The relay between a socket and frames: bytes both ways, ends of one direction, pressure, lies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from pathlib import Path

import pytest

from silo.errors import GuestError
from silo.isolation.pipes.link import make_channel
from silo.isolation.pipes.relay import relay
from tests.unit.isolation.pipes.silo import frame, read_all


class Bench:
    """A running relay: `service` is the host's end, `write` and `read` are the silo's."""

    def __init__(self) -> None:
        self.service, theirs = socket.socketpair()
        self.service.settimeout(5)
        source, sink, self.read, self.write = make_channel()
        self.task = asyncio.create_task(relay(theirs, source, sink))

    async def end(self) -> None:
        for descriptor in (self.read, self.write):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.service.close()
        async with asyncio.timeout(5):
            await asyncio.gather(self.task, return_exceptions=True)

    async def recv(self, size: int) -> bytes:
        return await asyncio.to_thread(self.service.recv, size)


def _unframed(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def test_an_empty_message_is_the_end_of_one_direction() -> None:
    async def run() -> None:
        bench = Bench()
        os.write(bench.write, frame(b"one") + frame(b""))
        assert await bench.recv(3) == b"one"
        assert await bench.recv(3) == b""
        bench.service.sendall(b"answer")
        bench.service.close()
        assert await asyncio.wait_for(read_all(bench.read), 5) == frame(b"answer")
        await bench.end()

    asyncio.run(run())


def test_the_end_of_one_direction_is_an_empty_message() -> None:
    async def run() -> None:
        bench = Bench()
        bench.service.sendall(b"question")
        bench.service.shutdown(socket.SHUT_WR)
        expected, got = frame(b"question") + frame(b""), b""
        while len(got) < len(expected):
            got += await asyncio.to_thread(os.read, bench.read, 100)
        assert got == expected
        os.write(bench.write, frame(b"an") + frame(b"swer"))
        # two messages, cut anywhere
        answer = b""
        while len(answer) < 6:
            answer += await bench.recv(6)
        assert answer == b"answer"
        await bench.end()

    asyncio.run(run())


def test_megabytes_both_ways_at_once() -> None:
    data = random.Random(1).randbytes(3_000_000)
    frames = b"".join(frame(data[start : start + 700_000]) for start in range(0, len(data), 700_000))

    def send(bench: Bench) -> None:
        bench.service.sendall(data)
        bench.service.shutdown(socket.SHUT_WR)

    def receive(bench: Bench) -> bytes:
        pieces = []
        while sum(map(len, pieces)) < len(data):
            pieces.append(bench.service.recv(65536))
        return b"".join(pieces)

    def write(bench: Bench) -> None:
        view = memoryview(frames)
        while view:
            view = view[os.write(bench.write, view) :]

    async def run() -> None:
        bench = Bench()
        inward = asyncio.create_task(read_all(bench.read))
        outward = asyncio.to_thread(receive, bench)
        writing = asyncio.to_thread(write, bench)
        _, got, _ = await asyncio.gather(asyncio.to_thread(send, bench), outward, writing)
        assert got == data
        bench.service.close()
        assert b"".join(_unframed(await inward)) == data
        await bench.end()

    asyncio.run(run())


def test_what_a_service_wrote_before_it_closed_arrives_and_then_the_end() -> None:
    async def run() -> None:
        bench = Bench()
        bench.service.sendall(b"x" * 200_000)
        bench.service.close()
        got = await asyncio.wait_for(read_all(bench.read), 5)
        assert b"".join(_unframed(got)) == b"x" * 200_000 or b"".join(_unframed(got)[:-1]) == b"x" * 200_000
        await asyncio.wait_for(bench.task, 5)
        await bench.end()

    asyncio.run(run())


def test_the_silos_end_is_the_services_end() -> None:
    async def run() -> None:
        bench = Bench()
        os.write(bench.write, frame(b"last"))
        os.close(bench.write)
        assert await bench.recv(10) == b"last"
        assert await bench.recv(10) == b""
        await asyncio.wait_for(bench.task, 5)
        await bench.end()

    asyncio.run(run())


def test_a_service_that_reads_nothing_holds_its_client_back() -> None:
    async def run() -> None:
        bench = Bench()
        os.set_blocking(bench.write, False)
        written = 0
        with pytest.raises(BlockingIOError):
            for _ in range(1000):
                for _ in range(20):
                    written += os.write(bench.write, frame(bytes(60_000)))
                    await asyncio.sleep(0.001)
        assert written < 2_000_000
        await bench.end()

    asyncio.run(run())


def test_a_message_that_is_too_long_ends_the_connection() -> None:
    async def run() -> None:
        bench = Bench()
        os.write(bench.write, b"\xff\xff\xff\xff")
        with pytest.raises(GuestError, match="message of 4294967295 bytes"):
            await asyncio.wait_for(bench.task, 5)
        assert await bench.recv(10) == b""
        await bench.end()

    asyncio.run(run())


def test_a_relay_that_is_cancelled_leaves_no_descriptor() -> None:
    async def run() -> None:
        before = sum(1 for _ in Path("/proc/self/fd").iterdir())
        bench = Bench()
        await asyncio.sleep(0.01)
        bench.task.cancel()
        await bench.end()
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before

    asyncio.run(run())
