"""Fixtures: a store on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.image_store import StoreOnDisk


@pytest.fixture
def disk(tmp_path: Path) -> StoreOnDisk:
    root = tmp_path / "data"
    root.mkdir()
    return StoreOnDisk(root)
