"""One daemon with Windows containers, our programs that say what they were given, and real ones from the registries."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.windows import ROOT, compile_program, real_programs, windows_docker


class Windows:
    """The docker client on a daemon with Windows containers; `tests` holds say.exe and small.exe, to be bound to C:\\tests."""

    def __init__(self, docker: Docker, tests: Path) -> None:
        self.docker = docker
        self.tests = tests
        self.mount = ("-v", f"{tests}:C:\\tests:ro")

    def say(self, *words: str, flags: tuple[str, ...] = (), stdin: bytes | None = None) -> list[str]:
        """The lines of say.exe in a new container."""
        command = ("run", "--rm", *self.mount, *flags, "windows", "C:\\tests\\say.exe", *words)
        return self.docker(*command, stdin=stdin).splitlines()

    def exit_code(self, container: str) -> int:
        return int(self.docker.inspect(container)["State"]["ExitCode"])

    def silo(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Our own client on the same daemon."""
        command = [str(ROOT / "bin" / "silo"), "-H", f"unix://{self.docker.silod.socket}", *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with windows_docker() as client:
        yield client


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tests")
    path.chmod(0o755)
    compile_program("say", path)
    compile_program("small", path, machine="i686")
    (path / "junk.exe").write_text("this is not a program\n")
    return path


@pytest.fixture
def windows(docker: Docker, folder: Path) -> Iterator[Windows]:
    """Removes the containers that a test leaves, but not those of modules."""
    before = set(docker("ps", "-aq", "--no-trunc").split())
    yield Windows(docker, folder)
    left = set(docker("ps", "-aq", "--no-trunc").split()) - before
    if left:
        docker("rm", "-f", "-v", *left)


@pytest.fixture(scope="session")
def programs() -> Path:
    return real_programs()
