"""What in an upper directory is nobody's change; Go's modes; portable capabilities."""

from __future__ import annotations

import os
import stat
import struct

import pytest

from silo.model.file_modes import go_mode
from silo.model.leftovers import is_leftover
from silo.storage.tar_tree import portable_capability


def status(mode: int, *, size: int = 0, device: int = 0) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, 0, 0, size, 0, 0, 0), {"st_rdev": device})  # type: ignore[arg-type]


DIRECTORY, FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("name", "found", "leftover"),
    [
        ("dev", status(DIRECTORY), True),
        ("dev", status(FILE), False),
        ("srv/dev", status(DIRECTORY), False),
        ("etc/hosts", status(FILE), True),
        ("etc/hosts", status(FILE, size=5), False),
        ("etc/hosts", status(stat.S_IFLNK), False),
        ("tmp/.wine-0", status(DIRECTORY), True),
        ("tmp/.wine-1000/server-1/lock", status(FILE), True),
        ("tmp/.wine-cellar", status(FILE), False),
        ("silo/prefix/wineserver", status(FILE, size=9), True),
        ("silo/prefix/dosdevices/com1", status(stat.S_IFLNK), True),
        ("silo/prefix/dosdevices/c:", status(stat.S_IFLNK), False),
        ("silo/prefix/system.reg", status(FILE, size=9), False),
    ],
)
def test_leftovers(name: str, found: os.stat_result, leftover: bool) -> None:
    assert is_leftover(name, found) is leftover


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFREG | 0o6755, 1 << 23 | 1 << 22 | 0o755),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
    ],
)
def test_go_modes(mode: int, go: int) -> None:
    assert go_mode(mode) == go


def test_capabilities_lose_their_namespace() -> None:
    second = struct.pack("<5I", 2 << 24 | 1, 0x2000, 1, 2, 3)
    third = struct.pack("<6I", 3 << 24 | 1, 0x2000, 1, 2, 3, 100_000)
    assert portable_capability(third) == portable_capability(second) == second
