"""Starting the daemon: who may, with what, and what is told when it fails."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.cli import daemon_start
from silo.cli.failure import DaemonUnreachable, Failure


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # A Unix socket's path is short, so pytest's own directory will not do.
    with tempfile.TemporaryDirectory(prefix="silo-cli-") as directory:
        yield Path(directory)


def _python(root: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the environment's interpreter."""
    path = root / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SILO_PYTHON", str(path))


def test_others_than_root_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DaemonUnreachable, match="needs root: sudo silo"):
        daemon_start.start_daemon("/nonexistent/silo.sock")


def test_it_waits_for_the_byte(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _python(root, f'echo "$@" > {root}/words; printf x >&3', monkeypatch)
    daemon_start.start_daemon(str(root / "run" / "silo.sock"))
    assert (root / "words").read_text() == f"-m silo.daemon --run-root {root}/run --ready-fd 3\n"


def test_the_logs_end_says_why_it_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _python(root, "echo old >&2; echo 'silod: no space left' >&2; exit 1", monkeypatch)
    with pytest.raises(Failure, match=r"silod did not start: no space left \(its log: .*/silod.log\)"):
        daemon_start.start_daemon(str(root / "silo.sock"))


def test_an_interpreter_that_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _python(root, "", monkeypatch)
    (root / "python").write_text("")
    with pytest.raises(Failure, match=r"silod cannot be started: .*/python"):
        daemon_start.start_daemon(str(root / "silo.sock"))
