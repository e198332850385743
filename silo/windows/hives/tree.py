"""What a hive says, independent of how it lies in a file: keys, values, and how an upper layer treats a lower one. Pure.

All values are frozen and may share parts: merging a small delta into a large tree makes new only the keys on the way to a change.

Source of the layer semantics: msuhanov/regf, "Layered keys".
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

from silo.model.windows_names import fold

MAXIMUM_DEPTH = 512
"""Levels of keys that Windows allows; what walks a tree may therefore recurse."""

FLAG_LINK = 0x0010
"""The value SymbolicLinkValue (REG_LINK, UTF-16LE without terminator) names the key that is meant."""


class ValueType(enum.IntEnum):
    """Data types that have names; any other 32-bit number is allowed too."""

    NONE = 0
    SZ = 1
    EXPAND_SZ = 2
    BINARY = 3
    DWORD = 4
    DWORD_BIG_ENDIAN = 5
    LINK = 6
    MULTI_SZ = 7
    RESOURCE_LIST = 8
    FULL_RESOURCE_DESCRIPTOR = 9
    RESOURCE_REQUIREMENTS_LIST = 10
    QWORD = 11


class Layering(enum.IntEnum):
    """How a key of an upper layer treats the key of the same path in the layers below; the numbers are those of the file."""

    MERGE = 0
    """Values and subkeys are added to those below."""
    TOMBSTONE = 1
    """The key is deleted; it holds nothing."""
    SUPERSEDE_LOCAL = 2
    """The values below are hidden, the subkeys are merged."""
    SUPERSEDE_TREE = 3
    """Everything below is hidden."""


class Value(msgspec.Struct, frozen=True):
    """A named value. Strings in `data` are UTF-16LE as stored, mostly but not always with a terminator."""

    name: str
    """"" is the default value."""
    type: int
    data: bytes
    tombstone: bool = False
    """In an upper layer: the value is deleted. Type NONE, no data."""


class Key(msgspec.Struct, frozen=True):
    """A key and all below it. `==` recurses and is meant for small trees; `layering.diff_trees` compares large ones."""

    name: str
    """Never empty nor with a backslash, except a root's, whose name means nothing."""
    values: tuple[Value, ...] = ()
    subkeys: tuple[Key, ...] = ()
    modified: int = 0
    """FILETIME: 100 ns since 1601 in UTC; 0 is unknown."""
    class_name: str = ""
    security: bytes = b""
    """A self-relative security descriptor; empty means that of the parent."""
    flags: int = 0
    """FLAG_…, and bits that are kept and mean nothing here."""
    user_flags: int = 0
    """The byte of virtualization (high nibble) and Wow64 flags (low nibble)."""
    layering: Layering = Layering.MERGE
    inherit_class: bool = False
    """In an upper layer: the class name is that of the layers below."""


class Hive(msgspec.Struct, frozen=True):
    """One hive file."""

    root: Key
    minor_version: int = 5
    """Of format 1.x, 3 to 6."""
    modified: int = 0
    """FILETIME."""
    file_name: str = ""
    """What the writer thought it was called; at most 32 UTF-16 units, mostly the tail of a path."""
    layered: bool = False
    """Whether the file may hold layer semantics; without it keys only merge."""


def tombstone(name: str, modified: int = 0) -> Key:
    """The key that deletes `name` in the layers below."""
    return Key(name=name, modified=modified, layering=Layering.TOMBSTONE)


def value_tombstone(name: str) -> Value:
    """The value that deletes `name` in the layers below."""
    return Value(name, ValueType.NONE, b"", tombstone=True)


def split_path(path: str) -> tuple[str, ...]:
    """The components of `Software\\Wine`; the root's path is empty."""
    return tuple(part for part in path.split("\\") if part)


def find_key(root: Key, path: str) -> Key | None:
    """The key at a path relative to `root`, without case."""
    key: Key | None = root
    for part in split_path(path):
        if key is None:
            return None
        wanted = fold(part)
        key = next((subkey for subkey in key.subkeys if fold(subkey.name) == wanted), None)
    return key


def find_value(key: Key, name: str) -> Value | None:
    """A value by its name, without case."""
    wanted = fold(name)
    return next((value for value in key.values if fold(value.name) == wanted), None)


def walk(root: Key, path: str = "") -> Iterator[tuple[str, Key]]:
    """Every key with its path, parents first, in order."""
    waiting = [(path, root)]
    while waiting:
        at, key = waiting.pop()
        yield at, key
        below = f"{at}\\" if at else ""
        waiting += [(below + subkey.name, subkey) for subkey in reversed(key.subkeys)]
