"""What a failing system call on files becomes, and how much room there is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from silo.errors import HostError, NoSpace
from silo.host.durable import free_bytes, host_error, sync_file_system


def test_errors() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        error = host_error(OSError(number, os.strerror(number)), "cannot write x")
        assert isinstance(error, NoSpace) and error.brief == "cannot write x: no space left on device" and error.hint
    other = host_error(OSError(errno.EIO, "I/O error", "x"), "cannot write x")
    assert type(other) is HostError and "I/O error" in other.details


def test_room_and_sync(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) < 1 << 60
    (tmp_path / "x").write_text("y")
    sync_file_system(tmp_path)
