from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from silo.errors import Unavailable
from silo.isolation.vm.pumps import Inlet, copy_out


class FakeWriter:
    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed.set()


class FakeReader:
    def __init__(self, *pieces: bytes, failure: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._failure = failure

    async def read(self) -> bytes:
        if not self._pieces and self._failure is not None:
            raise self._failure
        return self._pieces.pop(0) if self._pieces else b""


def scenario(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))


def test_input_ends_when_the_last_descriptor_is_closed() -> None:
    async def body() -> None:
        writer: Any = FakeWriter()
        inlet = Inlet(writer)
        first, second = inlet.open(), inlet.open()
        os.write(first, b"one ")
        os.close(first)
        inlet.finish()
        assert inlet.open() == -1
        await inlet.settle()
        assert not writer.closed.is_set()
        os.write(second, b"two")
        os.close(second)
        await writer.closed.wait()
        assert writer.data == b"one two"
        inlet.close()

    scenario(body)


def test_output_waits_for_a_slow_reader() -> None:
    async def body() -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        reader: Any = FakeReader(b"x" * 200_000, b"end")
        copying = asyncio.create_task(copy_out(reader, write))
        await asyncio.sleep(0.05)
        assert not copying.done()
        data = b""
        while len(data) < 200_003:
            await asyncio.sleep(0)
            try:
                data += os.read(read, 65536)
            except BlockingIOError:
                await asyncio.sleep(0.01)
        assert data.endswith(b"xend") and await copying is True
        os.close(read)
        os.close(write)

    scenario(body)


@pytest.mark.parametrize("reads", [True, False])
def test_output_that_nobody_reads_and_a_guest_that_is_gone(reads: bool) -> None:
    async def body() -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if not reads:
            os.close(read)
        reader: Any = FakeReader(b"x", failure=Unavailable("gone"))
        assert await copy_out(reader, write) is reads
        os.close(write)
        if reads:
            os.close(read)

    scenario(body)
