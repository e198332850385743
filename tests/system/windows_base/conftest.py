"""One base for all tests here, built with the packages that the machine has cached or can fetch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.errors import Unavailable
from silo.windows.base.build import BaseImage, build_base
from tests.support.probes import require_program, require_root

DATA_ROOT = Path(os.environ.get("SILO_TEST_BASE_ROOT", "/var/cache/silo-tests"))
"""Outlives the test run: the packages (124 MB) are fetched once, a base is built once for each state of the builder."""


@pytest.fixture(scope="session")
def base() -> Iterator[BaseImage]:
    require_root()
    require_program("unshare", "util-linux")
    try:
        yield build_base(DATA_ROOT, keep_rootfs=True)
    except Unavailable as error:
        pytest.skip(f"needs internet: {error}")


@pytest.fixture
def tree(base: BaseImage) -> Path:
    assert base.rootfs is not None
    return base.rootfs
