"""A carrier between a pipe's link and an agent made of words: order of answers, streams, and ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from silo.errors import Unavailable
from silo.isolation.vm.answers import Nothing, Relayed
from silo.isolation.vm.pipe_carrier import PipeCarrier

WORDS = b"\x0a\x00PIPE"


class FakeReader:
    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.pieces.get()


class FakeWriter:
    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """`asked` are the requests; those named in `lost` fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.lost: set[str] = set()
        self.reader, self.writer = FakeReader(), FakeWriter()
        self.forgotten: list[tuple[tuple[int, ...], bool]] = []
        self.answered: Callable[[], None] = lambda: None
        self._streams = 0

    async def request(self, name: str, params: Mapping[str, Any], **_: Any) -> Any:
        self.asked.append((name, params))
        if name in self.lost:
            raise Unavailable("gone")
        if name == "pipe":
            # an event that comes before the reply has been looked at
            self.answered()
            await asyncio.sleep(0.01)
            return Relayed(answer="80")
        return Nothing()

    def begin(self, name: str, params: Mapping[str, Any]) -> int:
        self.asked.append((name, params))
        return 1

    async def finish(self, number: int, name: str, *_: Any, **__: Any) -> Nothing:
        return Nothing()

    def begin_unanswered(self, name: str, params: Mapping[str, Any]) -> None:
        self.asked.append((name, params))

    def new_stream(self) -> int:
        self._streams += 1
        return self._streams

    def open_writer(self, number: int, *, passing: bool) -> FakeWriter:
        assert passing and number == 1
        return self.writer

    def open_reader(self, number: int, *, passing: bool) -> FakeReader:
        assert passing and number == 2
        return self.reader

    def forget_streams(self, *numbers: int, settled: bool) -> None:
        self.forgotten.append((numbers, settled))


class FakeSession:
    def __init__(self) -> None:
        self.client = FakeClient()
        self.carriers: set[asyncio.Task[None]] = set()
        self.hear: Callable[[bytes], None] | None = None

    def new_pipe(self, hear: Callable[[bytes], None]) -> int:
        self.hear = hear
        return 5

    def drop_pipe(self, link: int) -> None:
        assert link == 5
        self.hear = None


async def _begin(session: FakeSession) -> socket.socket:
    link = await PipeCarrier.dial(session)  # type: ignore[arg-type]
    link.setblocking(False)
    link.send(WORDS)
    return link


async def _receive(link: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(link, 100)


async def _all_ended(session: FakeSession) -> None:
    async with asyncio.timeout(5):
        while session.carriers:
            await asyncio.sleep(0.002)


def test_the_answer_comes_first_and_orders_follow_one_another() -> None:
    async def run() -> None:
        session = FakeSession()

        def early() -> None:
            assert session.hear is not None
            session.hear(b"\x85\x01")

        session.client.answered = early
        link = await _begin(session)
        assert await _receive(link) == b"\x80"
        assert await _receive(link) == b"\x85\x01"
        link.send(b"\x0b\x01")
        link.send(b"\x0b\x00")
        link.close()
        await _all_ended(session)
        assert session.client.asked == [
            ("pipe", {"container": "main", "link": 5, "message": WORDS.hex()}),
            ("pipe_say", {"link": 5, "message": "0b01"}),
            ("pipe_say", {"link": 5, "message": "0b00"}),
            ("pipe_close", {"link": 5}),
        ]
        assert session.hear is None

    asyncio.run(run())


def test_descriptors_become_streams_of_the_guest() -> None:
    async def run() -> None:
        session = FakeSession()
        link = await _begin(session)
        await _receive(link)
        their_read, write = os.pipe()
        read, their_write = os.pipe()
        socket.send_fds(link, [b"\x0c\x01\x00\x00\x80"], [their_read, their_write])
        os.close(their_read)
        os.close(their_write)
        os.write(write, b"to the guest")
        session.client.reader.pieces.put_nowait(b"from the guest")
        assert await asyncio.to_thread(os.read, read, 100) == b"from the guest"
        session.client.reader.pieces.put_nowait(b"")
        assert await asyncio.to_thread(os.read, read, 100) == b""
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")
        assert session.client.writer.data == b"to the guest"
        assert ("pipe_say", {"link": 5, "message": "0c01000080", "streams": (1, 2)}) in session.client.asked
        assert session.client.forgotten == [((1, 2), True)]
        os.close(write)
        os.close(read)
        link.close()
        await _all_ended(session)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["event", "request"])
def test_the_link_ends_with_what_it_stands_for(how: str) -> None:
    async def run() -> None:
        session = FakeSession()
        link = await _begin(session)
        await _receive(link)
        if how == "event":
            assert session.hear is not None
            session.hear(b"")
        else:
            session.client.lost.add("pipe_say")
            link.send(b"\x0b\x01")
        assert await _receive(link) == b""
        await _all_ended(session)
        link.close()

    asyncio.run(run())
