"""The port through which any part keeps documents that must survive a crash; implemented by `silo.state`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Documents(Protocol[T]):
    """A durable table of frozen values by key. Calls are fast (below a millisecond) and may be made on the event loop.

    Every call commits by itself unless it is inside `transaction()`. A second row with the same `name` raises Conflict.
    """

    def get(self, key: str) -> T | None: ...
    def put(self, key: str, value: T, *, name: str | None = None) -> None: ...
    def delete(self, key: str) -> None: ...
    def items(self) -> Iterator[tuple[str, T]]: ...
    def transaction(self) -> AbstractContextManager[None]: ...
