"""The standard streams of an exec: pipes for what the caller wants, a null device for the rest."""

from __future__ import annotations

import os
from pathlib import Path

from silo.model.runtime import ExecStreams

_NAMES = ("stdin", "stdout", "stderr")


def make_pipes(null: Path, wanted: tuple[bool, bool, bool]) -> tuple[ExecStreams, list[int]]:
    """(the caller's ends, nonblocking; the program's 0, 1, 2)."""
    ours: dict[str, int] = {}
    theirs: list[int] = []
    for name, is_wanted in zip(_NAMES, wanted, strict=True):
        if not is_wanted:
            theirs.append(os.open(null, (os.O_RDONLY if name == "stdin" else os.O_WRONLY) | os.O_CLOEXEC))
            continue
        read, write = os.pipe2(os.O_CLOEXEC)
        mine, its = (write, read) if name == "stdin" else (read, write)
        os.set_blocking(mine, False)
        ours[name] = mine
        theirs.append(its)
    return ExecStreams(**ours), theirs


def close_streams(streams: ExecStreams) -> None:
    """Give the caller's ends back."""
    for descriptor in (streams.stdin, streams.stdout, streams.stderr, streams.terminal):
        if descriptor is not None:
            os.close(descriptor)
