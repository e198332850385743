"""Streams cross between threads and the event loop whole, and let go when somebody stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from silo.errors import InvalidRequest
from silo.storage.streaming import consume, stream


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_out() -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            for number in range(1000):
                yield bytes([number % 256]) * 1000
        finally:
            closed.append(True)

    async def whole() -> list[bytes]:
        return [chunk async for chunk in stream(pieces())]

    async def first() -> bytes:
        opened = stream(pieces())
        chunk = await anext(opened)
        await opened.aclose()  # type: ignore[attr-defined]
        return chunk

    found = asyncio.run(whole())
    assert sum(map(len, found)) == 1_000_000 and len(found) < 10
    assert asyncio.run(first()) == found[0] and len(closed) == 2


def test_in() -> None:
    assert asyncio.run(consume(chunks(b"ab", b"", b"c" * 500_000), lambda file: file.read())) == b"ab" + b"c" * 500_000
    assert asyncio.run(consume(chunks(b"abc"), lambda file: file.read(2))) == b"ab"


def test_a_cancelled_reader_is_waited_for() -> None:
    ended = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield b"x"

    def read(file: object) -> None:
        try:
            file.read(1 << 30)  # type: ignore[attr-defined]
        except InvalidRequest:
            ended.append(True)

    async def cancel() -> None:
        task = asyncio.create_task(consume(endless(), read))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    asyncio.run(cancel())
