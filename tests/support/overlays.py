"""Directories as layers of a real overlay mount, for tests: what the kernel shows of them, and what it writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from silo.host import mounts


@contextlib.contextmanager
def mounted(place: Path, layers: Sequence[Path], *, upper: Path | None = None) -> Iterator[Path]:
    """The layers, uppermost first, mounted somewhere beneath `place`; changes go to `upper`."""
    for name in ("root", "work", "empty"):
        (place / name).mkdir(parents=True, exist_ok=True)
    lowers = [*map(os.fspath, layers), *([] if upper is not None or len(layers) > 1 else [os.fspath(place / "empty")])]
    root = place / "root"
    if upper is None:
        mounts.mount_overlay(root, lowers=lowers, read_only=True)
    else:
        upper.mkdir(exist_ok=True)
        mounts.mount_overlay(root, lowers=lowers, upper=os.fspath(upper), work=os.fspath(place / "work"))
    try:
        yield root
    finally:
        mounts.unmount(root)
