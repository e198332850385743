"""One daemon with images of both kinds, and the programs that look around in containers; every test at both isolation levels."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.images import busybox_image_tar
from tests.support.probes import require_program
from tests.support.windows import PROGRAMS, compile_program, windows_docker
from tests.system.isolation.meeting import require_level


@pytest.fixture(scope="session", params=["process", "hyperv"])
def level(request: pytest.FixtureRequest) -> str:
    """The isolation level under test."""
    require_level(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with windows_docker() as client:
        client("load", "-i", str(busybox_image_tar(client.silod.root / "busybox.tar")))
        yield client


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """probe.exe and places.exe; Windows containers have it at C:\\tests."""
    path = tmp_path_factory.mktemp("programs")
    path.chmod(0o755)
    compile_program("probe", path, "probe_linux")
    compile_program("places", path)
    compile_program("limits", path)
    return path


@pytest.fixture(scope="session")
def linux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program meet; Linux containers have it at /tests."""
    path = tmp_path_factory.mktemp("linux-programs")
    path.chmod(0o755)
    compiler = require_program("gcc")
    command = [compiler, "-O1", "-Wall", "-Werror", "-static", "-o", str(path / "meet"), str(PROGRAMS / "meet.c")]
    subprocess.run(command, check=True)
    return path
