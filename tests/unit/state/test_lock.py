"""A second daemon is refused while the first lives, and not after its death."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from silo.errors import Conflict
from silo.state import lock

_HOLDER = """
import sys
from pathlib import Path
from silo.state import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "data" / "lock"
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"), lock(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock(path), pytest.raises(Conflict), lock(path):
            pass
    with lock(path):
        pass
