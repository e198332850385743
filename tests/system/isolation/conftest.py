"""One daemon with Windows containers, and the PE programs that look around in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.windows import compile_program, windows_docker


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with windows_docker() as client:
        yield client


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """probe.exe and places.exe; containers have it at C:\\tests."""
    path = tmp_path_factory.mktemp("programs")
    path.chmod(0o755)
    compile_program("probe", path, "probe_linux")
    compile_program("places", path)
    return path
