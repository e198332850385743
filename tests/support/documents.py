"""An in-memory `Documents` for tests of parts that keep rows; values pass through their encoding as in a database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class MemoryDocuments(Generic[T]):
    """Survives the store that uses it, as the state does."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.rows: dict[str, bytes] = {}

    def get(self, key: str) -> T | None:
        raw = self.rows.get(key)
        return None if raw is None else self._decode(raw)

    def put(self, key: str, value: T, *, name: str | None = None) -> None:
        del name
        self.rows[key] = msgspec.json.encode(value, enc_hook=os.fspath)

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)

    def items(self) -> Iterator[tuple[str, T]]:
        for key, raw in list(self.rows.items()):
            yield key, self._decode(raw)

    def transaction(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _decode(self, raw: bytes) -> T:
        return msgspec.json.decode(raw, type=self._kind, dec_hook=lambda kind, value: kind(value))
