"""Small files in the run directory: what an isolation level remembers of a container, so that a restarted daemon can go on.

They are for root's eyes: environments hold passwords, and the directories can be passed through by anyone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def write_private(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as output:
        output.write(content)


def encode(value: msgspec.Struct) -> bytes:
    """JSON, with paths as text; the same for equal values."""
    return msgspec.json.encode(value, enc_hook=str, order="deterministic")


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=kind, dec_hook=_decode_path)


def save(file: Path, value: msgspec.Struct) -> None:
    """All of it or nothing, whenever the daemon is killed."""
    fresh = file.with_suffix(".new")
    write_private(fresh, encode(value))
    fresh.rename(file)


def load(file: Path, kind: type[T]) -> T | None:
    """None when there is none or it is not whole (a container half made)."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return decode(file.read_bytes(), kind)
    return None


def _decode_path(kind: type, value: Any) -> Any:
    """For msgspec, which writes paths as text."""
    return kind(value)
