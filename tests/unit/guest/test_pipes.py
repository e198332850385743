"""Mapped pipes in the agent: a link's messages, its streams, and its end with the session."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from silo.guest.failures import Refused
from silo.guest.loop import Loop
from silo.guest.pipes import Pipes
from silo.guest.streams import Streams


class FakeLauncher:
    """`theirs` is where the launcher would be."""

    def __init__(self) -> None:
        self.answered: Callable[[bytes], bool] = lambda _: False
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asked = b""

    def ask(self, message: bytes, descriptors: list[int], answered: Callable[[bytes], bool]) -> socket.socket:
        assert not descriptors
        self.asked, self.answered = message, answered
        return self.ours


class FakeCall:
    def __init__(self) -> None:
        self.replies: list[dict[str, Any]] = []

    def reply(self, result: dict[str, Any]) -> None:
        self.replies.append(result)


class Bench:
    def __init__(self, directory: str) -> None:
        self.told: list[tuple[int, bytes]] = []
        self.loop = Loop()
        self.streams = Streams(self.loop, lambda _: None, directory)
        self.pipes = Pipes(self.loop, self.streams, lambda link, message: self.told.append((link, message)))
        self.launcher = FakeLauncher()
        self.call = FakeCall()

    def open(self, link: int = 1) -> None:
        self.pipes.open(self.call, self.launcher, link, b"\x0aPIPE")  # type: ignore[arg-type]


def test_the_first_answer_is_the_replys_and_the_rest_are_events(tmp_path: Any) -> None:
    bench = Bench(str(tmp_path))
    bench.open()
    assert bench.launcher.asked == b"\x0aPIPE"
    assert bench.launcher.answered(b"\x80")
    assert bench.launcher.answered(b"\x85\x01")
    assert not bench.launcher.answered(b"")
    assert bench.call.replies == [{"answer": "80"}]
    assert bench.told == [(1, b"\x85\x01"), (1, b"")]
    with pytest.raises(Refused, match="no more"):
        bench.pipes.say(1, b"\x0b\x01", [])


def test_a_refused_pipe_has_no_link(tmp_path: Any) -> None:
    bench = Bench(str(tmp_path))
    bench.open()
    assert not bench.launcher.answered(b"\x81rest")
    bench.open()


def test_a_link_is_had_once(tmp_path: Any) -> None:
    bench = Bench(str(tmp_path))
    bench.open()
    with pytest.raises(Refused):
        bench.open()


def test_streams_are_unix_pipes_for_the_launcher(tmp_path: Any) -> None:
    bench = Bench(str(tmp_path))
    bench.open()
    bench.pipes.say(1, b"\x0c\x01\x00\x00\x80", [7, 8])
    data, descriptors, _, _ = socket.recv_fds(bench.launcher.theirs, 100, 4)
    assert data == b"\x0c\x01\x00\x00\x80" and len(descriptors) == 2
    with pytest.raises(Refused, match="in use"):
        bench.pipes.say(1, b"x", [7, 9])
    bench.pipes.forget([7, 8])
    assert os.read(descriptors[0], 1) == b"", "what the launcher reads has ended"
    with pytest.raises(BrokenPipeError):
        os.write(descriptors[1], b"x")
    with pytest.raises(Refused, match="two streams"):
        bench.pipes.say(1, b"x", [7])
    for descriptor in descriptors:
        os.close(descriptor)


def test_links_end_with_the_session(tmp_path: Any) -> None:
    bench = Bench(str(tmp_path))
    bench.open()
    bench.pipes.say(1, b"x", [7, 8])
    _, descriptors, _, _ = socket.recv_fds(bench.launcher.theirs, 100, 4)
    bench.streams.new_session()
    bench.pipes.new_session()
    assert bench.launcher.theirs.recv(10) == b""
    assert os.read(descriptors[0], 1) == b""
    assert not bench.launcher.answered(b"\x85\x01") and bench.told == []
    for descriptor in descriptors:
        os.close(descriptor)
