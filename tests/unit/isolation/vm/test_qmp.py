"""The monitor's client against a fake QEMU over a socket pair: answers, refusals, and everything that a broken one may send."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from silo.errors import GuestError, HostError, SiloError, Unavailable
from silo.isolation.vm.qmp import MAXIMUM_LINE_BYTES, QmpClient

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class FakeQemu:
    """The other end. `answers` maps a command to what is returned, or to an exception's text in a tuple."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.seen: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.answers: dict[str, Any] = {}

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.end, data)

    async def serve(self) -> None:
        buffer = b""
        while True:
            await self._until_readable()
            data, descriptors, _, _ = socket.recv_fds(self.end, 65536, 8)
            if not data:
                return
            self.descriptors += descriptors
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                await self._answer(json.loads(line))

    async def _answer(self, message: dict[str, Any]) -> None:
        self.seen.append(message)
        answer = self.answers.get(message["execute"], {})
        if isinstance(answer, bytes):
            await self.send(answer)
        elif isinstance(answer, tuple):
            error = {"class": "GenericError", "desc": answer[0]}
            await self.send(json.dumps({"error": error, "id": message["id"]}).encode() + b"\r\n")
        elif answer is not None:
            await self.send(json.dumps({"return": answer, "id": message["id"]}).encode() + b"\r\n")

    async def _until_readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.end.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.end.fileno())


Body = Callable[[QmpClient, FakeQemu], Awaitable[None]]


def scenario(body: Body, on_event: Callable[[str, dict[str, Any]], None] | None = None) -> None:
    async def whole() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        fake = FakeQemu(theirs)
        serving = asyncio.create_task(fake.serve())
        await fake.send(GREETING)
        client = await QmpClient.connect(ours, on_event)
        try:
            await body(client, fake)
        finally:
            client.close()
            serving.cancel()
            theirs.close()
            for descriptor in fake.descriptors:
                os.close(descriptor)

    asyncio.run(asyncio.wait_for(whole(), 10))


def test_a_command_and_its_answer() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers["query-status"] = {"status": "running"}
        assert await client.execute("query-status") == {"status": "running"}
        await client.execute("migrate-incoming", uri="fd:7", no_wait=True)
        assert fake.seen[0]["execute"] == "qmp_capabilities"
        assert fake.seen[-1]["arguments"] == {"uri": "fd:7", "no-wait": True}

    scenario(body)


def test_overlapping_commands_get_their_own_answers() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers = {"slow": None, "quick": 1}
        slow = asyncio.create_task(client.execute("slow"))
        assert await client.execute("quick") == 1
        number = next(message["id"] for message in fake.seen if message["execute"] == "slow")
        await fake.send(json.dumps({"return": 2, "id": number}).encode() + b"\n")
        assert await slow == 2

    scenario(body)


def test_a_refusal_says_what_qemu_said() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers["device_add"] = ("Bus 'x' not found",)
        with pytest.raises(HostError, match="Bus 'x' not found"):
            await client.execute("device_add")
        assert await client.execute("query-status") == {}

    scenario(body)


def test_descriptors_go_with_the_message() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        read, write = os.pipe()
        await client.execute("getfd", descriptors=[write], fdname="state")
        os.write(fake.descriptors[0], b"x")
        assert os.read(read, 1) == b"x"
        os.close(read)
        os.close(write)

    scenario(body)


def test_events_are_told() -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    async def body(client: QmpClient, fake: FakeQemu) -> None:
        await fake.send(b'{"event": "SHUTDOWN", "data": {"guest": true}}\n{"event": 5}\n{"event": "X", "data": 1}\n')
        await client.execute("query-status")
        assert seen == [("SHUTDOWN", {"guest": True})]

    scenario(body, lambda name, data: seen.append((name, data)))


def test_its_end_is_told_to_all_that_wait() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers["slow"] = None
        slow = asyncio.create_task(client.execute("slow"))
        await asyncio.sleep(0.01)
        fake.end.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Unavailable, match="has ended"):
            await slow
        await client.wait_closed()
        with pytest.raises(Unavailable, match="has ended"):
            await client.execute("query-status")

    scenario(body)


@pytest.mark.parametrize(
    "answer",
    [b"nonsense\n", b"[1]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"x" * (MAXIMUM_LINE_BYTES + 70_000)],
    ids=["words", "list", "bytes", "deep", "endless"],
)
def test_what_is_no_message_ends_the_connection(answer: bytes) -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers["query-status"] = answer
        with pytest.raises(GuestError):
            await client.execute("query-status")
        await client.wait_closed()

    scenario(body)


@pytest.mark.parametrize(
    "answer", [b'{"return": 1}\n', b'{"return": 1, "id": "7"}\n', b'{"error": 5, "id": 99}\n', b"\n\n"]
)
def test_answers_to_nobody_are_passed_over(answer: bytes) -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        await fake.send(answer)
        assert await client.execute("query-status") == {}

    scenario(body)


def test_silence_has_a_limit() -> None:
    async def body(client: QmpClient, fake: FakeQemu) -> None:
        fake.answers["query-status"] = None
        with pytest.raises(Unavailable, match="did not answer query-status"):
            await client.execute("query-status", limit_s=0.05)

    scenario(body)


def test_a_monitor_that_never_greets() -> None:
    async def whole() -> None:
        ours, theirs = socket.socketpair()
        with pytest.raises(SiloError, match="did not answer on its monitor"):
            await QmpClient.connect(ours, limit_s=0.05)
        theirs.close()

    asyncio.run(whole())
