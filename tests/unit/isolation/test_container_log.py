"""The keeper's log: whole records whatever happens to the disk, bounded when asked."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from silo.isolation.container_log import LogWriter
from silo.model.log import parse_records


def payloads(file: Path) -> list[bytes]:
    return [payload for _, _, payload, _ in parse_records(file.read_bytes())]


def test_records_are_appended(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        writer = LogWriter(str(tmp_path / "log"), 0)
        writer.append(1, text)
        writer.close()
    assert payloads(tmp_path / "log") == [b"one", b"two"]


def test_rotation_keeps_between_one_and_two_limits(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"), 1000)
    for number in range(100):
        writer.append(1, b"%03d" % number + b"x" * 97)
    sizes = [(tmp_path / name).stat().st_size for name in ("log", "log.1")]
    assert all(size <= 1000 for size in sizes)
    kept = payloads(tmp_path / "log.1") + payloads(tmp_path / "log")
    assert kept[-1].startswith(b"099") and 8 <= len(kept) <= 16


def test_a_full_disk_loses_records_and_leaves_no_torn_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(str(tmp_path / "log"), 0)
    writer.append(1, b"before")
    write = os.write

    def torn(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:10])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    for failing in (torn, full):
        monkeypatch.setattr(os, "write", failing)
        writer.append(2, b"lost")
    monkeypatch.undo()
    writer.append(1, b"after")
    assert payloads(tmp_path / "log") == [b"before", b"after"]
    assert writer.lost_bytes == 8


def test_a_log_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "late"
    writer = LogWriter(str(directory / "log"), 0)
    writer.append(1, b"lost")
    directory.mkdir()
    writer.append(1, b"kept")
    assert payloads(directory / "log") == [b"kept"]


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    LogWriter(str(tmp_path / "log"), 0).append(1, b"x")
    assert (tmp_path / "elsewhere").read_bytes() == b""
