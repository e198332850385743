"""What COPY and ADD take, and where it goes: values that the engine's builder and the storage exchange."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class SourceKind(enum.StrEnum):
    """`archive` is a tar, maybe compressed, that ADD unpacks."""

    FILE = "file"
    DIRECTORY = "dir"
    ARCHIVE = "archive"


class ModeRule(Protocol):
    """`--chmod`: the new permission bits of what has `mode`."""

    def __call__(self, mode: int, *, is_directory: bool) -> int: ...


class SourceItem(msgspec.Struct, frozen=True, kw_only=True):
    """One source of COPY or ADD, as found in its tree.

    `path` is relative to the tree, without links ("" is the tree itself); `name` is its base name as the user wrote it; `digest`
    covers names, kinds, modes, owners and contents, not times.
    """

    path: str
    found: str
    """The path as the source word led to it, with links."""
    name: str
    kind: SourceKind
    digest: str


class CopyTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where an item goes and as whose: `path` is an absolute POSIX path in the image's root.

    `into`: the item keeps its name beneath `path`; else a file becomes `path` itself. A directory always gives its contents.
    `owner` None keeps the source's; `mode` None too, else it answers the new permissions.
    """

    path: str
    into: bool
    owner: tuple[int, int] | None = (0, 0)
    mode: ModeRule | None = None
