"""kill -9 of silod in the middle of a build: nothing runs on, nothing is half-tagged, the next build goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.building import Builder, write_context
from tests.support.daemon import Docker

pytestmark = pytest.mark.system

SLOW = "FROM busybox\nRUN echo first > /first\nENV a=b\nRUN echo begun; sleep 1000\n"


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def begin(docker: Docker, context: Path) -> None:
    """A build that has come to its slow step."""
    process = Builder(docker).start(context, "-t", "wanted")
    assert process.stdout is not None
    while b"begun" not in process.stdout.readline():
        pass


def test_an_unfinished_step_is_ended_by_the_next_daemon(docker: Docker, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": SLOW, "file": "x" * 1000})
    failed = Builder(docker).try_("-", stdin=b"FROM busybox\nRUN false\n")
    assert failed.returncode == 1
    kept = docker("ps", "-aq")
    begin(docker, context)
    docker.silod.kill()
    docker.silod.start()
    # The container of a step that had failed before was left on purpose; the one of the unfinished step is gone.
    until(lambda: docker("ps", "-aq") == kept)
    assert docker.try_("inspect", "wanted").returncode != 0
    assert not list((docker.silod.data_root / "builds").iterdir())
    done = Builder(docker)(write_context(tmp_path, {"Dockerfile": SLOW.replace("sleep 1000", "true")}), "-t", "wanted")
    assert done.count("Using cache") == 2, "every step that was made survives"
    assert docker("run", "--rm", "wanted", "cat", "/first") == "first"


def test_an_orderly_end_of_the_daemon_during_a_build(docker: Docker, tmp_path: Path) -> None:
    begin(docker, write_context(tmp_path, {"Dockerfile": SLOW}))
    docker.silod.stop()
    docker.silod.start()
    until(lambda: docker("ps", "-aq") == "")
    assert docker.try_("inspect", "wanted").returncode != 0


def test_what_was_built_survives_the_daemons_death(docker: Docker, tmp_path: Path) -> None:
    context = write_context(
        tmp_path, {"Dockerfile": "FROM busybox\nENV a=b\nCOPY file /file\nCMD cat /file\n", "file": "1"}
    )
    Builder(docker)(context, "-t", "wanted")
    docker.silod.kill()
    docker.silod.start()
    assert docker("run", "--rm", "wanted") == "1"
    assert Builder(docker)(context).count("Using cache") == 3
