"""The HTTP server: versions, errors, bodies in both directions, hijacking, slow and vanishing clients."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.api.call import Call, Reply, reply_json
from silo.api.routing import Route
from silo.api.server import ApiServer
from silo.errors import Conflict
from tests.unit.api.wire import Client, call

Handler = Callable[[Call], Awaitable[Reply | None]]


class Site:
    """A server with routes of the test's own."""

    def __init__(self, path: Path, **handlers: Handler) -> None:
        self.path = path
        routes = [
            Route(method=m, pattern=f"/{n}", title=n, handler=h) for n, h in handlers.items() for m in ("GET", "POST")
        ]
        self.server = ApiServer(None, log=logging.getLogger("test.site"), routes=routes)  # type: ignore[arg-type]


@asynccontextmanager
async def site(tmp_path: Path, **handlers: Handler) -> AsyncIterator[Site]:
    made = Site(tmp_path / "s.sock", **handlers)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(made.path))
    listener.listen()
    serving = asyncio.create_task(made.server.serve(listener))
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        await made.server.close()
        await serving


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 20)

    uvloop.run(bounded())


async def echo(call: Call) -> Reply:
    return Reply(200, await call.body(), "application/octet-stream")


def test_keep_alive_and_standard_headers(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            for text in ("one", "two"):
                answer = await client.call("POST", "/echo", raw=text.encode())
                assert answer.body == text.encode() and answer.status == 200
            assert answer.headers["api-version"] == "1.50" and answer.headers["ostype"] == "linux"
            assert answer.headers["server"].startswith("Silo/") and answer.headers["docker-experimental"] == "false"

    run(work)


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("/v1.24/echo", 200, ""),
        ("/v1.50/echo", 200, ""),
        ("/echo", 200, ""),
        ("/v1.23/echo", 400, "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.51/echo", 400, "client version 1.51 is too new. Maximum supported API version is 1.50"),
        ("/v2.0/echo", 400, "too new"),
        ("/v1.x/echo", 404, "page not found"),
        ("/nothing", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/echo/more", 404, "page not found"),
    ],
)
def test_versions_and_unknown_pages(tmp_path: Path, target: str, status: int, words: str) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made:
            answer = await call(made.path, "GET", target)
            assert answer.status == status
            if words:
                assert words in answer.message

    run(work)


def test_chunked_and_piecemeal_bodies(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")
            await asyncio.sleep(0.02)
            await client.send(b"llo\r\n6\r\n world\r\n0\r\n\r\n")
            assert (await client.answer()).body == b"hello world"
            for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
                await client.send(bytes([byte]))
            assert (await client.answer()).body == b"abc"

    run(work)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def work() -> None:
        one = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            await client.send(one + b"1" + one + b"2" + b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [(await client.answer()).body for _ in range(3)] == [b"1", b"2", b""]

    run(work)


def test_errors_become_messages_and_unknown_ones_an_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def conflict(_call: Call) -> Reply:
        raise Conflict("the name is taken", hint="choose another")

    async def broken(_call: Call) -> Reply:
        raise ValueError("secret detail")

    async def work() -> None:
        async with site(tmp_path, conflict=conflict, broken=broken, echo=echo) as made, Client(made.path) as client:
            answer = await client.call("POST", "/conflict")
            assert (answer.status, answer.json()) == (409, {"message": "the name is taken (choose another)"})
            answer = await client.call("POST", "/broken")
            assert answer.status == 500 and "secret" not in answer.message
            number = answer.message.split()[2].rstrip(":")
            assert f"error {number}" in caplog.text and "secret detail" in caplog.text
            assert (await client.call("POST", "/echo", raw=b"still here")).body == b"still here"

    run(work)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nBad Header: x\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (b"GET /echo HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_malformed_heads_are_refused_and_the_connection_closed(tmp_path: Path, data: bytes, status: int) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            await client.send(data)
            answer = await client.answer()
            assert answer.status == status and answer.message
            assert await client.reader.read() == b""

    run(work)


def test_a_json_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made:
            answer = await call(made.path, "POST", "/echo", raw=b"x" * (5 << 20))
            assert answer.status == 400 and "larger than" in answer.message

    run(work)


def test_a_broken_chunked_body_ends_the_connection(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
            assert await client.reader.read() == b""
            # The server lives on.
            assert (await call(made.path, "POST", "/echo", raw=b"a")).body == b"a"

    run(work)


def test_expect_continue(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made, Client(made.path) as client:
            await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert await client.head() == (100, {})
            await client.send(b"ok")
            assert (await client.answer()).body == b"ok"

    run(work)


def test_an_unread_body_does_not_break_the_next_request(tmp_path: Path) -> None:
    async def lazy(_call: Call) -> Reply:
        return reply_json("done")

    async def work() -> None:
        async with site(tmp_path, lazy=lazy, echo=echo) as made, Client(made.path) as client:
            answer = await client.call("POST", "/lazy", raw=b"x" * 1_000_000)
            assert answer.json() == "done"
            assert (await client.call("POST", "/echo", raw=b"next")).body == b"next"

    run(work)


def test_a_fast_sender_is_held_back_by_a_slow_handler(tmp_path: Path) -> None:
    """The server buffers a bounded amount of a large body while nobody reads it."""
    go = asyncio.Event()

    async def slow(call: Call) -> Reply:
        await go.wait()
        size = 0
        async for chunk in call.chunks():
            size += len(chunk)
        return reply_json(size)

    async def work() -> None:
        total = 20 << 20
        async with site(tmp_path, slow=slow) as made, Client(made.path) as client:
            client.writer.transport.set_write_buffer_limits(high=1)
            client.writer.write(f"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n".encode())
            client.writer.write(b"x" * total)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.writer.drain(), 0.5)
            left = client.writer.transport.get_write_buffer_size()
            assert left > total - (2 << 20), "the server took much more than it may buffer"
            go.set()
            assert (await client.answer()).json() == total

    run(work)


def test_a_slow_client_holds_the_handler_back(tmp_path: Path) -> None:
    written = 0

    async def flood(call: Call) -> None:
        nonlocal written
        call.begin("application/octet-stream")
        for _ in range(320):
            await call.write(b"x" * 65536)
            written += 65536

    async def work() -> None:
        async with site(tmp_path, flood=flood) as made, Client(made.path) as client:
            await client.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.5)
            assert written < 4 << 20
            assert len((await client.answer()).body) == 320 * 65536

    run(work)


def test_http_1_0_gets_a_body_without_chunks(tmp_path: Path) -> None:
    async def stream(call: Call) -> None:
        call.begin("text/plain")
        await call.write(b"a")
        await call.write(b"b")

    async def work() -> None:
        async with site(tmp_path, stream=stream) as made, Client(made.path) as client:
            await client.send(b"GET /stream HTTP/1.0\r\n\r\n")
            answer = await client.answer()
            assert answer.body == b"ab" and "transfer-encoding" not in answer.headers

    run(work)


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("body", [b"", b'{"Tty":true}'])
def test_hijack_both_ways_with_half_close(tmp_path: Path, upgrade: bool, body: bytes) -> None:
    """Input sent together with the request arrives; the client's half-close ends the input and not the output."""
    seen: list[bytes] = []

    async def take(call: Call) -> None:
        seen.append(await call.body())
        stream = call.hijack(multiplexed=False)
        received = b""
        while data := await stream.read():
            received += data
            await call.write(data.upper())
        await asyncio.sleep(0.05)
        await call.write(b"|end:%d" % len(received))

    async def work() -> None:
        async with site(tmp_path, take=take) as made, Client(made.path) as client:
            extra = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
            head = b"POST /take HTTP/1.1\r\nHost: x\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body)
            await client.send(head + body + b"early ")
            status, headers = await client.head()
            assert status == (101 if upgrade else 200)
            assert headers["content-type"] == "application/vnd.docker.raw-stream"
            if upgrade:
                assert headers["upgrade"] == "tcp" and headers["connection"] == "Upgrade"
            await client.send(b"late")
            client.writer.write_eof()
            assert await client.reader.read() == b"EARLY LATE|end:10"
            assert seen == [body]

    run(work)


def test_a_half_close_before_the_101_does_not_end_the_stream(tmp_path: Path) -> None:
    async def take(call: Call) -> None:
        await asyncio.sleep(0.1)
        stream = call.hijack(multiplexed=True)
        assert await stream.read() == b""
        await call.write(b"output")

    async def work() -> None:
        async with site(tmp_path, take=take) as made, Client(made.path) as client:
            await client.send(b"POST /take HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            client.writer.write_eof()
            status, headers = await client.head()
            assert status == 101 and headers["content-type"] == "application/vnd.docker.multiplexed-stream"
            assert await client.reader.read() == b"output"

    run(work)


def test_large_transfers_through_a_hijacked_connection(tmp_path: Path) -> None:
    total = 30 << 20

    async def take(call: Call) -> None:
        stream = call.hijack(multiplexed=False)
        while data := await stream.read():
            await call.write(data)

    async def work() -> None:
        async with site(tmp_path, take=take) as made, Client(made.path) as client:
            await client.send(b"POST /take HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            assert (await client.head())[0] == 101

            async def pour() -> None:
                for _ in range(total >> 16):
                    await client.send(b"y" * 65536)
                client.writer.write_eof()

            pouring = asyncio.create_task(pour())
            size = 0
            while data := await client.reader.read(1 << 20):
                size += len(data)
            await pouring
            assert size == total

    run(work)


@pytest.mark.parametrize("half_close_first", [False, True])
@pytest.mark.parametrize("hijack", [False, True])
def test_a_vanished_client_cancels_a_streaming_handler(tmp_path: Path, half_close_first: bool, hijack: bool) -> None:
    """Also when the connection was half closed long before, so that no read can tell."""
    cancelled = asyncio.Event()

    async def stream(call: Call) -> None:
        if hijack:
            call.hijack(multiplexed=False)
        else:
            call.begin("text/plain")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def work() -> None:
        async with site(tmp_path, stream=stream) as made, Client(made.path) as client:
            await client.send(b"POST /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            await client.head()
            if half_close_first:
                client.writer.write_eof()
                await asyncio.sleep(0.1)
                assert not cancelled.is_set(), "a half-close is not the end"
            client.writer.close()
            await asyncio.wait_for(cancelled.wait(), 5)

    run(work)


def test_a_plain_handler_finishes_although_its_client_is_gone(tmp_path: Path) -> None:
    done, entered = asyncio.Event(), asyncio.Event()

    async def slow(_call: Call) -> Reply:
        entered.set()
        await asyncio.sleep(0.2)
        done.set()
        return reply_json(1)

    async def work() -> None:
        async with site(tmp_path, slow=slow) as made:
            async with Client(made.path) as client:
                await client.send(b"POST /slow HTTP/1.1\r\nHost: x\r\n\r\n")
                await entered.wait()
            await asyncio.wait_for(done.wait(), 5)

    run(work)


def test_a_client_that_vanishes_in_the_middle_of_a_body_fails_the_reader(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def slow(call: Call) -> Reply:
        try:
            return Reply(200, await call.body())
        finally:
            ended.set()

    async def work() -> None:
        async with site(tmp_path, slow=slow) as made:
            async with Client(made.path) as client:
                await client.send(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            await asyncio.wait_for(ended.wait(), 5)

    run(work)


def test_close_ends_streams_and_connections(tmp_path: Path) -> None:
    async def stream(call: Call) -> None:
        call.begin("text/plain")
        await asyncio.Event().wait()

    async def work() -> None:
        async with site(tmp_path, stream=stream) as made, Client(made.path) as busy, Client(made.path) as idle:
            await busy.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await busy.head()
            await made.server.close()
            assert await busy.reader.read() == b"" and await idle.reader.read() == b""

    run(work)


def test_two_listeners(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path, echo=echo) as made:
            second = socket.socket(socket.AF_INET)
            second.bind(("127.0.0.1", 0))
            second.listen()
            serving = asyncio.create_task(made.server.serve(second))
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection(*second.getsockname())
            writer.write(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            writer.close()
            assert (await call(made.path, "GET", "/echo")).status == 200
            await made.server.close()
            await serving

    run(work)


def test_query_words(tmp_path: Path) -> None:
    async def words(call: Call) -> Reply:
        return reply_json(
            [call.flag("f"), call.flag("g", default=True), call.text("t"), call.number("n"), call.filters()]
        )

    async def work() -> None:
        async with site(tmp_path, words=words) as made:
            for text, wanted in (
                ("1", True),
                ("true", True),
                ("0", False),
                ("", False),
                ("None", False),
                ("no", False),
            ):
                assert (await call(made.path, "GET", f"/words?f={text}")).json()[0] is wanted
            old = "%7B%22a%22%3A%7B%22b%22%3Atrue%2C%22c%22%3Afalse%7D%7D"
            new = "%7B%22a%22%3A%5B%22b%22%5D%7D"
            for filters in (old, new):
                answer = await call(made.path, "GET", f"/words?t=x%20y&n=5&filters={filters}")
                assert answer.json() == [False, True, "x y", 5, {"a": ["b"]}]
            for bad in ("n=abc", "filters=%7B", "filters=[]", "filters=%7B%22a%22%3A1%7D"):
                assert (await call(made.path, "GET", f"/words?{bad}")).status == 400

    run(work)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80) | st.sampled_from([
    b"GET /echo HTTP/1.1\r\n", b"POST /echo HTTP/1.1\r\n", b"Host: x\r\n", b"Content-Length: 3\r\n", b"\r\n", b"abc",
    b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"Upgrade: tcp\r\nConnection: Upgrade\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Expect: 100-continue\r\n", b"\x00", b"\n\n",
]), max_size=12))  # fmt: skip
def test_any_bytes_are_answered_or_refused(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """Whatever a client sends, every answer is well-formed and the server goes on serving others."""

    async def work() -> None:
        async with site(tmp_path_factory.mktemp("fuzz"), echo=echo) as made:
            async with Client(made.path) as client:
                for piece in pieces:
                    await client.send(piece)
                client.writer.write_eof()
                raw = await asyncio.wait_for(client.reader.read(), 5)
                assert raw == b"" or raw.startswith(b"HTTP/1.1 ")
            assert json.loads((await call(made.path, "POST", "/echo", raw=b"1")).body) == 1

    run(work)
