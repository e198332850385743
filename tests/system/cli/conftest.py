"""A real silod, and the silo and docker programs pointed at it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Docker, Silod, docker_for, running_silod
from tests.support.images import busybox_image_tar

PROGRAM = Path(__file__).resolve().parents[3] / "bin" / "silo"


class Silo:
    """The silo program, pointed at the daemon under test."""

    def __init__(self, silod: Silod) -> None:
        self.silod = silod
        self.environment = {**os.environ, "SILO_HOST": f"unix://{silod.socket}", "TZ": "UTC"}

    def try_(self, *words: str, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [PROGRAM, *words],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=60,
            check=False,
            **options,
        )

    def __call__(self, *words: str, stdin: bytes = b"", **options: Any) -> str:
        """A command that must succeed; its output without the last newline."""
        done = self.try_(*words, stdin=stdin, **options)
        assert done.returncode == 0, f"silo {' '.join(words)}: {done.returncode}\n{done.stderr.decode()}"
        return done.stdout.decode().rstrip("\n")


@pytest.fixture(scope="session")
def cli_silod() -> Iterator[Silod]:
    with running_silod(windows_pool="0") as daemon:
        yield daemon


@pytest.fixture(scope="session")
def docker_program_here(cli_silod: Silod) -> Docker:
    return docker_for(cli_silod)


@pytest.fixture
def silo(cli_silod: Silod) -> Iterator[Silo]:
    """With the image busybox; the containers that a test leaves are removed."""
    program = Silo(cli_silod)
    if not program("images", "-q", "busybox"):
        program("load", "-i", str(busybox_image_tar(cli_silod.root / "busybox.tar")))
    yield program
    if left := program("ps", "-aq").split():
        program("rm", "-f", "-v", *left)
