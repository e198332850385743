"""Progress: bars on a terminal, a line per change elsewhere, and nothing that steers the terminal."""

from __future__ import annotations

import os
import pty
import select
from typing import Any

import pytest

from silo.cli.failure import Failure
from silo.cli.progress import Board, show_progress

LINES: list[dict[str, Any]] = [
    {"status": "Pulling from debian", "id": "trixie"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 4}},
    {"status": "Downloading", "id": "b"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 3, "total": 4}},
    {"status": "Pull complete", "id": "a"},
    {"status": "Digest: \x1b[2Jx"},
]


def _read(descriptor: int) -> str:
    """All that arrives: a pseudo terminal hands bytes over a moment after they were written."""
    data = b""
    while select.select([descriptor], [], [], 0.2)[0] and (more := os.read(descriptor, 65536)):
        data += more
    return data.decode()


def test_lines_without_a_terminal() -> None:
    reader, writer = os.pipe()
    said = show_progress(LINES, descriptor=writer)
    assert _read(reader).splitlines() == [
        "trixie: Pulling from debian", "a: Downloading", "b: Downloading", "a: Pull complete", "Digest: \\x1b[2Jx",
    ]  # fmt: skip
    assert said == ["Digest: \x1b[2Jx"]
    os.close(reader)
    os.close(writer)


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    board = Board(follower)
    for line in LINES[:4]:
        board.show(line)
    output = _read(leader)
    assert "a: Downloading [=======>" in output
    assert output.endswith("\x1b[2A\r\x1b[2Ka: Downloading [======================>       ] 3B/4B\x1b[2B\r")
    os.close(leader)
    os.close(follower)


def test_quiet_says_nothing_but_errors() -> None:
    reader, writer = os.pipe()
    with pytest.raises(Failure, match=r"no \\x1b space"):
        show_progress([*LINES, {"errorDetail": {"message": "no \x1b space"}}], descriptor=writer, quiet=True)
    assert _read(reader) == ""
    os.close(reader)
    os.close(writer)
