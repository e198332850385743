"""A small HTTP client for tests that sees every byte."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    @property
    def message(self) -> str:
        return str(self.json()["message"])


class Client:
    """One connection. `async with Client(path) as client`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_unix_connection(str(self._path))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        line = (await self.reader.readline()).split(b" ", 2)
        if len(line) < 2:
            raise EOFError
        headers = {}
        while (text := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = text.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(line[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk of a chunked answer, b"" after the last."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        await self.reader.readline()
        return data

    async def answer(self, *, bodyless: bool = False) -> Answer:
        status, headers = await self.head()
        body = b""
        if bodyless or status in (204, 304):
            pass
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while piece := await self.chunk():
                body += piece
        else:
            body = await self.reader.read()
        return Answer(status, headers, body)

    async def call(
        self, method: str, target: str, body: object = None, *, headers: dict[str, str] | None = None, raw: bytes = b""
    ) -> Answer:
        data = json.dumps(body).encode() if body is not None else raw
        lines = [f"{method} {target} HTTP/1.1", "Host: api.moby.localhost"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if data or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(data)}")
        if body is not None:
            lines.append("Content-Type: application/json")
        await self.send("\r\n".join([*lines, "", ""]).encode() + data)
        return await self.answer(bodyless=method == "HEAD")


async def call(path: Path, method: str, target: str, body: object = None, **options: Any) -> Answer:
    """One call on a connection of its own."""
    async with Client(path) as client:
        return await asyncio.wait_for(client.call(method, target, body, **options), 10)


def parse_frames(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        length = int.from_bytes(data[4:8], "big")
        assert data[1:4] == b"\0\0\0"
        frames.append((data[0], data[8 : 8 + length]))
        data = data[8 + length :]
    return frames
