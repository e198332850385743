"""Fixtures: a store on the disk, and registries that run while a module's tests do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_store import Registry, StoreOnDisk, run_registry
from tests.support.probes import require_root


@pytest.fixture
def disk(tmp_path: Path) -> StoreOnDisk:
    require_root()
    root = tmp_path / "data"
    root.mkdir()
    return StoreOnDisk(root)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from run_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def guarded_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Wants user `ada` with the password `lovelace`."""
    # bcrypt of the password, made once: `htpasswd -nbB ada lovelace`
    yield from run_registry(
        tmp_path_factory.mktemp("guarded"),
        htpasswd="ada:$2b$05$6YY3q4oiwluV9ObH7hCCPugM0aRI/Wy8rODTpfElpeFaeLut7nim.\n",
    )
