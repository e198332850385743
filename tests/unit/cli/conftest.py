"""A fake daemon, and the silo program run against it as users run it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.cli.fake_daemon import FakeDaemon, fake_daemon

PROGRAM = Path(__file__).resolve().parents[3] / "bin" / "silo"

Silo = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    # A Unix socket's path is short, so pytest's own directory will not do.
    with tempfile.TemporaryDirectory(prefix="silo-cli-") as directory, fake_daemon(Path(directory)) as fake:
        yield fake


@pytest.fixture
def silo(daemon: FakeDaemon, tmp_path: Path) -> Silo:
    """Runs `silo WORDS` against the fake daemon."""

    def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "TZ": "UTC", "HOME": str(tmp_path), "SILO_HOST": daemon.host, **environment},
        )

    return run
