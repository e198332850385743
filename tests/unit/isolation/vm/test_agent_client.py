"""The client against an agent that the test plays, frame by frame."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from silo.errors import GuestError, NoSpace, NotFound, ProcessStartFailed, Unavailable
from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.answers import Nothing
from silo.isolation.vm.programs import Guest
from silo.model.guest_frames import (
    CREDIT,
    DATA,
    END,
    EVENT,
    HELLO,
    REPLY,
    REQUEST,
    SYNC,
    VERSION,
    WINDOW_BYTES,
    Frame,
    FrameParser,
    ProtocolError,
    SyncFinder,
    encode_credit,
    encode_data,
    encode_end,
    encode_message,
    parse_credit,
    parse_data,
)


class FakeAgent:
    def __init__(self) -> None:
        self.host, self._mine = socket.socketpair()
        self._mine.setblocking(False)
        self._parser = FrameParser()
        self._frames: list[Frame] = []

    async def greet(self, *, before: bytes = b"", **fields: Any) -> None:
        finder = SyncFinder()
        found = None
        while found is None:
            found = finder.feed(await self._receive())
        self._frames += self._parser.feed(found[1])
        assert (await self.next()).type == HELLO
        hello = {"version": VERSION, "boot": "b", "tasks": [], **fields}
        await self.send(before + SYNC + found[0] + encode_message(HELLO, 0, hello))

    async def _receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._mine, 65536)

    async def next(self) -> Frame:
        while not self._frames:
            data = await self._receive()
            assert data
            self._frames += self._parser.feed(data)
        return self._frames.pop(0)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._mine, data)

    async def answer(self, **reply: Any) -> dict[str, Any]:
        """The next request, replied to."""
        frame = await self.next()
        assert frame.type == REQUEST
        await self.send(encode_message(REPLY, frame.stream, reply or {"result": {}}))
        request: dict[str, Any] = json.loads(frame.payload)
        return request

    def cut(self) -> None:
        self._mine.close()


Body = Callable[[AgentClient, FakeAgent, list[Any]], Coroutine[Any, Any, None]]


def play(body: Body) -> None:
    """Connected; the list collects what `on_lost` got."""

    async def whole() -> None:
        async with asyncio.timeout(20):
            lost: list[Any] = []
            client = AgentClient(on_lost=lost.append)
            agent = FakeAgent()
            await asyncio.gather(client.connect(agent.host), agent.greet())
            try:
                await body(client, agent, lost)
            finally:
                client.close()
                agent.cut()

    asyncio.run(whole())


def test_requests_are_answered_out_of_order() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        first = asyncio.ensure_future(client.request("sync"))
        second = asyncio.ensure_future(client.request("ping", answer=Nothing))
        one, two = await agent.next(), await agent.next()
        assert [json.loads(frame.payload)["do"] for frame in (one, two)] == ["sync", "ping"]
        await agent.send(encode_message(REPLY, two.stream, {"result": {}}))
        assert await second == Nothing()
        assert not first.done()
        await agent.send(encode_message(REPLY, one.stream, {"result": {"later": "field"}}))
        await first

    play(body)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"kind": "system", "message": "x", "errno": 2}, NotFound),
        ({"kind": "system", "message": "x", "errno": 28}, NoSpace),
        ({"kind": "system", "message": "x", "errno": 5}, GuestError),
        ({"kind": "a new one", "message": "\x1b[2J" + "x" * 3000}, GuestError),
        ({"kind": 5, "message": "x"}, ProtocolError),
    ],
)
def test_refusals_become_errors(error: dict[str, Any], kind: type[Exception]) -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        with pytest.raises(kind) as raised:
            await asyncio.gather(client.request("stat"), agent.answer(error=error))
        assert len(str(raised.value)) < 1000
        assert str(raised.value).isprintable()
        assert bool(lost) == (kind is ProtocolError)

    play(body)


def test_a_program_that_is_not_there() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        start = Guest(client).run("c", {"process": {"args": ["nope"]}}, stdin=False)
        with pytest.raises(ProcessStartFailed, match="nope"):
            await asyncio.gather(start, agent.answer(error={"kind": "not_found", "message": "m"}))

    play(body)


def test_a_late_answer_is_passed_over_and_an_unasked_one_is_not() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        with pytest.raises(Unavailable):
            await client.request("sync", timeout_s=0.01)
        await agent.answer()
        await asyncio.gather(client.request("ping"), agent.answer())
        await agent.send(encode_message(REPLY, 77, {"result": {}}))
        while not lost:
            await asyncio.sleep(0.001)
        assert isinstance(lost[0], ProtocolError)
        assert not client.is_connected

    play(body)


def test_a_reader_gives_credit_only_for_what_was_taken() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        reader = client.open_reader(3)
        assert parse_credit((await agent.next()).payload) == (0, WINDOW_BYTES)
        for offset in range(0, WINDOW_BYTES, 32768):
            await agent.send(encode_data(3, offset, b"x" * 32768))
        assert await reader.read() == b"x" * 32768
        for _ in range(2):
            await reader.read()
        frame = await agent.next()
        assert (frame.type, *parse_credit(frame.payload)) == (CREDIT, 65536, 65536 + WINDOW_BYTES)
        await agent.send(encode_data(3, WINDOW_BYTES, b"y" * 65000) + encode_data(3, WINDOW_BYTES + 65000, b"z" * 1000))
        while not lost:
            await asyncio.sleep(0.001)
        assert isinstance(lost[0], ProtocolError)

    play(body)


def test_streams_go_on_after_a_reconnection() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        reader, writer = client.open_reader(3), client.open_writer(4)
        await agent.next()
        await agent.send(encode_data(3, 0, b"abcdef") + encode_data(3, 6, b"x" * 5000))
        assert await reader.read() == b"abcdef"
        reader.acknowledge()
        await writer.write(b"0123456789")
        assert parse_data((await agent.next()).payload) == (0, b"0123456789")
        agent.cut()
        while not lost:
            await asyncio.sleep(0.001)
        waiting = asyncio.ensure_future(writer.write(b"more"))
        new = FakeAgent()
        state = {
            "task": "t", "container": "t", "state": "running",
            "input": {"stream": 4, "received": 7, "limit": 7 + WINDOW_BYTES, "ended": False},
            "outputs": [{"stream": 3, "start": 0, "end": 5006}],
        }  # fmt: skip
        await asyncio.gather(client.connect(new.host), new.greet(before=b"rest of a frame", tasks=[state]))
        assert parse_data((await new.next()).payload) == (7, b"789")
        credit = await new.next()
        assert (credit.type, parse_credit(credit.payload)[0]) == (CREDIT, 6)
        assert parse_data((await new.next()).payload) == (10, b"more")
        await waiting
        await new.send(encode_data(3, 6, b"ghi") + encode_end(3, 9))
        assert [await reader.read(), await reader.read()] == [b"ghi", b""]
        writer.close()
        assert (await new.next()).type == END
        new.cut()

    play(body)


def test_a_writer_waits_for_credit() -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        writer = client.open_writer(4)
        writing = asyncio.ensure_future(writer.write(b"x" * (WINDOW_BYTES + 10)))
        received = 0
        while received < WINDOW_BYTES:
            frame = await agent.next()
            assert frame.type == DATA
            received += len(frame.payload) - 8
        await asyncio.sleep(0.01)
        assert not writing.done()
        await agent.send(encode_credit(4, 100, 100 + WINDOW_BYTES))
        await writing
        await agent.send(encode_credit(4, 10**9, 10**9))
        while not lost:
            await asyncio.sleep(0.001)
        assert isinstance(lost[0], ProtocolError)

    play(body)


@pytest.mark.parametrize("event", [{"event": "exit"}, {"event": "other"}, {"event": "exit", "task": "t", "code": -1}])
def test_a_malformed_event_ends_the_session(event: dict[str, Any]) -> None:
    async def body(client: AgentClient, agent: FakeAgent, lost: list[Any]) -> None:
        await agent.send(encode_message(EVENT, 0, event))
        while not lost:
            await asyncio.sleep(0.001)
        assert isinstance(lost[0], ProtocolError)

    play(body)


def test_an_agent_that_does_not_greet() -> None:
    async def whole() -> None:
        agent = FakeAgent()
        with pytest.raises(Unavailable):
            await AgentClient().connect(agent.host, timeout_s=0.05)
        agent.cut()
        agent = FakeAgent()
        with pytest.raises(Unavailable):
            await asyncio.gather(AgentClient().connect(agent.host), agent.greet(version=0))
        agent.cut()

    asyncio.run(whole())
