"""Where silos meet: who serves, who is told, what counts, and what is left when all have gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from silo.errors import GuestError
from silo.isolation.pipes import HostPipes
from silo.isolation.pipes.messages import HOST_BIT, MAXIMUM_CONNECTIONS
from silo.model.mount import PlannedPipe
from tests.unit.isolation.pipes.silo import FakeSilo, frame, read_all, until

MEET = PlannedPipe(name="\\\\.\\pipe\\Meet", host_pipe="\\\\.\\pipe\\Meet")
OFFER, OPEN, ATTACH, REFUSE = 11, 12, 13, 14


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pipes = HostPipes(directory)
        self.pipes.open()
        self._silos: list[FakeSilo] = []

    async def silo(self, name: str, pipe: PlannedPipe = MEET) -> FakeSilo:
        """A silo that has mapped the pipe."""
        silo = FakeSilo()
        self._silos.append(silo)
        await asyncio.gather(self.pipes.map(name, (pipe,), silo.dial), silo.accept())
        return silo

    async def close(self) -> None:
        await self.pipes.close()
        for silo in self._silos:
            silo.close()


@asynccontextmanager
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "pipes")
    try:
        yield made
    finally:
        await made.close()


def scenario(function: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """A test that is a coroutine over a fresh bench; no descriptor and no file may be left of it."""

    def test(tmp_path: Path) -> None:
        async def run() -> None:
            before = sum(1 for _ in Path("/proc/self/fd").iterdir())
            async with asyncio.timeout(20), bench(tmp_path) as made:
                await function(made)
            assert not (tmp_path / "pipes").exists()
            assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before

        asyncio.run(run())

    test.__doc__ = function.__doc__
    return test


def _close(*lists: list[int]) -> None:
    for descriptors in lists:
        for descriptor in descriptors:
            os.close(descriptor)


@scenario
async def test_a_server_is_offered_to_the_others(bench: Bench) -> None:
    one, two = await bench.silo("one"), await bench.silo("two")
    assert one.opened == b"\x0a\x00" + frame(b"\\\\.\\pipe\\Meet")
    one.say_served(True)
    assert await two.order() == (OFFER, 1, [])
    three = await bench.silo("three")
    assert three.opened[1] == 1, "it learns with its first word that the pipe is served"
    assert one.is_silent()
    one.say_served(False)
    assert await two.order() == (OFFER, 0, [])
    assert await three.order() == (OFFER, 0, [])


@scenario
async def test_two_silos_are_connected_and_the_host_keeps_nothing(bench: Bench) -> None:
    server, client = await bench.silo("server"), await bench.silo("client")
    server.say_served(True)
    await client.order()
    client.say_client(5)
    kind, number, theirs = await server.order()
    assert kind == OPEN and number & HOST_BIT
    kind, attached, ours = await client.order()
    assert (kind, attached) == (ATTACH, 5)
    os.write(ours[1], b"question")
    assert os.read(theirs[0], 100) == b"question"
    os.write(theirs[1], b"answer")
    assert os.read(ours[0], 100) == b"answer"
    os.close(theirs[1])
    assert os.read(ours[0], 100) == b"", "nobody else holds the other end"
    os.close(theirs[0])
    with pytest.raises(BrokenPipeError):
        os.write(ours[1], b"x")
    _close(ours)


@scenario
async def test_the_second_server_takes_over_when_the_first_ends(bench: Bench) -> None:
    one, two, three = [await bench.silo(name) for name in ("one", "two", "three")]
    one.say_served(True)
    assert await two.order() == (OFFER, 1, [])
    assert await three.order() == (OFFER, 1, [])
    two.say_served(True)
    await asyncio.sleep(0.02)
    bench.pipes.drop("one")
    assert await three.order() == (OFFER, 1, [])
    three.say_client(1)
    kind, _, theirs = await two.order()
    assert kind == OPEN
    kind, _, ours = await three.order()
    assert kind == ATTACH
    _close(theirs, ours)


@scenario
async def test_a_client_without_a_server_is_refused(bench: Bench) -> None:
    one = await bench.silo("one")
    one.say_client(9)
    assert await one.order() == (REFUSE, 9, [])


@scenario
async def test_more_clients_than_may_be_wait_for_room_at_both_ends(bench: Bench) -> None:
    server, client = await bench.silo("server"), await bench.silo("client")
    server.say_served(True)
    await client.order()
    numbers = []
    for number in range(1, MAXIMUM_CONNECTIONS + 3):
        client.say_client(number)
    for _ in range(MAXIMUM_CONNECTIONS):
        _, number, theirs = await server.order()
        _, _, ours = await client.order()
        numbers.append(number)
        _close(theirs, ours)
    client.say_ended(1)
    await asyncio.sleep(0.02)
    assert server.is_silent() and client.is_silent(), "the word of one end frees nothing"
    server.say_ended(numbers[0])
    kind, _, theirs = await server.order()
    assert kind == OPEN
    kind, number, ours = await client.order()
    assert (kind, number) == (ATTACH, MAXIMUM_CONNECTIONS + 1)
    _close(theirs, ours)
    server.say_served(False)
    assert (await client.order())[:2] in ((OFFER, 0), (REFUSE, MAXIMUM_CONNECTIONS + 2))


@scenario
async def test_a_launcher_that_floods_is_refused(bench: Bench) -> None:
    server, client = await bench.silo("server"), await bench.silo("client")
    server.say_served(True)
    await client.order()
    for number in range(1, 2 * MAXIMUM_CONNECTIONS + 2):
        client.say_client(number)
    kinds = []
    for _ in range(MAXIMUM_CONNECTIONS + 1):
        kind, number, ours = await client.order()
        kinds.append((kind, number))
        _close(ours)
    assert kinds[-1] == (REFUSE, 2 * MAXIMUM_CONNECTIONS + 1)
    for _ in range(MAXIMUM_CONNECTIONS):
        _close((await server.order())[2])


@scenario
async def test_a_launcher_that_lies_loses_its_pipe_only(bench: Bench) -> None:
    liar, other = await bench.silo("liar"), await bench.silo("other")
    liar.say_served(True)
    assert await other.order() == (OFFER, 1, [])
    liar.ours.send(b"\x85\x07")
    assert await other.order() == (OFFER, 0, [])
    assert liar.ours.recv(10) == b""
    other.say_served(True)
    await until(lambda: (bench.directory / "meet").exists())


@scenario
async def test_descriptors_that_a_launcher_sends_are_not_kept(bench: Bench) -> None:
    silo = await bench.silo("one")
    read, write = os.pipe()
    socket.send_fds(silo.ours, [b"\x85\x01"], [write])
    os.close(write)
    await until(lambda: (bench.directory / "meet").exists())
    assert os.read(read, 1) == b"", "the other end was closed"
    os.close(read)


@scenario
async def test_programs_of_the_host_come_by_a_socket_while_somebody_serves(bench: Bench) -> None:
    server = await bench.silo("server")
    path = bench.directory / "meet"
    assert not path.exists()
    server.say_served(True)
    await until(path.exists)
    assert path.stat().st_mode & 0o777 == 0o600
    assert bench.directory.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as program:
        program.connect(str(path))
        kind, number, theirs = await server.order()
        assert kind == OPEN and number & HOST_BIT
        program.sendall(b"hello")
        assert await asyncio.to_thread(os.read, theirs[0], 100) == frame(b"hello")
        os.write(theirs[1], frame(b"answer"))
        await asyncio.sleep(0.02)
        assert program.recv(100) == b"answer"
    _close(theirs)
    server.say_served(False)
    await until(lambda: not path.exists())


@scenario
async def test_a_socket_of_the_host_is_what_a_client_gets(bench: Bench) -> None:
    path = bench.directory.parent / "service.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(5)
        silo = await bench.silo("one", PlannedPipe(name="\\\\.\\pipe\\x", socket=path))
        assert silo.opened[1] == 1
        silo.say_client(1)
        kind, number, ours = await silo.order()
        assert (kind, number) == (ATTACH, 1)
        service, _ = await asyncio.to_thread(listener.accept)
        os.write(ours[1], frame(b"to the service"))
        assert await asyncio.to_thread(service.recv, 100) == b"to the service"
        service.sendall(b"back")
        assert await asyncio.to_thread(os.read, ours[0], 100) == frame(b"back")
        # what was written last arrives though the container is gone
        os.write(ours[1], frame(b"last"))
        _close(ours)
        bench.pipes.drop("one")
        assert await asyncio.to_thread(service.recv, 100) == b"last"
        assert await asyncio.to_thread(service.recv, 100) == b""
        service.close()
    # nobody listens
    silo = await bench.silo("two", PlannedPipe(name="\\\\.\\pipe\\x", socket=path))
    silo.say_client(1)
    assert await silo.order() == (REFUSE, 1, [])
    path.unlink()
    path.write_text("no socket")
    silo.say_client(2)
    assert await silo.order() == (REFUSE, 2, [])


@scenario
async def test_a_launcher_that_cannot_map_is_an_error(bench: Bench) -> None:
    silo = FakeSilo()

    async def fail() -> None:
        await silo.packet()
        silo.ours.send(b"\x81" + (87).to_bytes(4, "little") + frame(b"PIPE"))

    with pytest.raises(GuestError, match="could not map the pipe"):
        await asyncio.gather(bench.pipes.map("one", (MEET,), silo.dial), fail())
    silo.close()


@scenario
async def test_a_container_that_ends_while_it_is_asked(bench: Bench) -> None:
    silo = FakeSilo()

    async def end() -> None:
        await silo.packet()
        silo.close()

    with pytest.raises(GuestError, match="ended"):
        await asyncio.gather(bench.pipes.map("one", (MEET,), silo.dial), end())


@scenario
async def test_a_launcher_that_takes_nothing_hears_the_newest_offer_later(bench: Bench) -> None:
    frozen, server = await bench.silo("frozen"), await bench.silo("server")
    for _ in range(1000):
        server.say_served(True)
        server.say_served(False)
        await asyncio.sleep(0)
    server.say_served(True)
    await until((bench.directory / "meet").exists)
    words = []
    while not words or not frozen.is_silent():
        words.append((await frozen.order())[1])
        await asyncio.sleep(0.001)
    assert words[-1] == 1


def test_what_a_killed_daemon_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "pipes").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "pipes/old"))
    HostPipes(tmp_path / "pipes").open()
    assert list((tmp_path / "pipes").iterdir()) == []


def test_a_container_of_a_former_daemon_gets_its_pipes_back_in_the_background(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path) as made:
            silo = FakeSilo()
            made.pipes.map_again("one", (MEET,), silo.dial)
            # it is paused, and nothing waits for it
            await asyncio.sleep(0.01)
            await silo.accept()
            silo.say_served(True)
            await until((tmp_path / "pipes/meet").exists)
            silo.close()
            await until(lambda: not (tmp_path / "pipes/meet").exists())

    asyncio.run(run())


def test_reading_to_the_end_reads_all() -> None:
    """Of the bench itself."""

    async def run() -> bytes:
        read, write = os.pipe()
        os.write(write, b"x" * 1000)
        os.close(write)
        try:
            return await read_all(read)
        finally:
            os.close(read)

    assert asyncio.run(run()) == b"x" * 1000
