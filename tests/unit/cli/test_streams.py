"""Frames, detach keys, exit statuses and the HTTP that carries them."""

from __future__ import annotations

import socket
import threading

import pytest

from silo.cli.attach import shell_status
from silo.cli.commands.running import start_status
from silo.cli.detach import DetachScanner, parse_keys
from silo.cli.failure import Failure, UsageError
from silo.cli.frames import Demultiplexer
from silo.cli.http import Response, encode_query, quote, send_request


def _frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("step", [1, 3, 8, 1000])
def test_frames_come_apart_however_they_are_cut(step: int) -> None:
    data = _frame(1, b"out") + _frame(2, b"errors") + _frame(1, b"") + _frame(1, b"x" * 100)
    got = {1: b"", 2: b""}

    def write(stream: int, payload: bytes) -> None:
        got[stream] += payload

    feed = Demultiplexer(write).feed
    for start in range(0, len(data), step):
        feed(data[start : start + step])
    assert got == {1: b"out" + b"x" * 100, 2: b"errors"}


def test_what_is_no_frame_is_an_error() -> None:
    with pytest.raises(Failure, match="damaged"):
        Demultiplexer(lambda _stream, _payload: None).feed(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("typed", "sent", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_detach_keys(typed: list[bytes], sent: bytes, left: bool) -> None:
    scanner, out, done = DetachScanner(parse_keys("")), b"", False
    for data in typed:
        piece, done = scanner.feed(data)
        out += piece
    assert (out, done) == (sent, left)


def test_detach_keys_in_words() -> None:
    assert parse_keys("ctrl-a,d,ctrl-@") == b"\x01d\x00"
    with pytest.raises(UsageError, match="invalid detach keys"):
        parse_keys("ctrl-?")


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (3, 3), (255, 255), (256, 1), (300, 44), (0xC0000005, 5), (-1, 255)]
)
def test_a_windows_code_never_becomes_success(code: int, status: int) -> None:
    assert shell_status(code) == status


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("x: no such file or directory", 127),
        ("x: permission denied", 126),
        ("x: is a directory", 126),
        ("port is already allocated", 125),
    ],
)
def test_exit_statuses_of_starts_that_fail(message: str, status: int) -> None:
    assert start_status(message) == status


def _answered(data: bytes, *, hang_up: bool = True) -> Response:
    """A response to be read from these bytes, sent one at a time."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        for index in range(len(data)):
            theirs.sendall(data[index : index + 1])
        if hang_up:
            theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return Response(ours)
    finally:
        thread.join()


def test_bodies_of_all_kinds() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n"
    assert _answered(head + b"Content-Length: 3\r\n\r\nabcdef").read() == b"abc"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert _answered(chunked).read() == b"abcde"
    assert _answered(head + b"\r\nto the end").read() == b"to the end"
    assert list(_answered(head + b"\r\n{1}\n\n{2}\n{3}").lines()) == [b"{1}", b"{2}", b"{3}"]
    assert _answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").read() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_damaged_answers_are_failures(data: bytes) -> None:
    with pytest.raises(Failure):
        _answered(data).read()


def test_requests_on_the_wire() -> None:
    ours, theirs = socket.socketpair()
    send_request(ours, "POST", "/x", body=iter([b"ab", b"", b"c"]), headers={"A": "b"})
    ours.close()
    sent = theirs.makefile("rb").read()
    assert sent.startswith(b"POST /x HTTP/1.1\r\nHost: api.moby.localhost\r\n")
    assert sent.endswith(b"\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


def test_queries_are_quoted() -> None:
    assert encode_query({"a": "x y&z", "b": "", "c": ["1", "é"]}) == "?a=x%20y%26z&c=1&c=%C3%A9"
    assert quote("a/b:c@d", safe="/:@") == "a/b:c@d"
    assert quote("../x\r\n") == "..%2Fx%0D%0A"
