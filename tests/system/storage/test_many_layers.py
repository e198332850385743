"""An image may have as many layers as Docker's, and be looked at: `cp`, `diff` and COPY mount them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.host import mounts
from tests.support.probes import require_root

pytestmark = pytest.mark.system


@pytest.mark.parametrize("count", [2, 130])
def test_layers_with_long_names_are_mounted(tmp_path: Path, count: int) -> None:
    require_root()
    layers = [tmp_path / f"{number:064x}" for number in range(count)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name).write_text("x")
    place = tmp_path / "merged"
    place.mkdir()
    mounts.mount_overlay(place, lowers=[str(layer) for layer in layers], read_only=True)
    try:
        assert len(list(place.iterdir())) == count
    finally:
        mounts.unmount(place)
