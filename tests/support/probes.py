"""Probes for what system tests need. A skip reads `needs NAME: what was probed and found`."""

from __future__ import annotations

import os
import shutil

import pytest

MISSING_HERE = frozenset({"cgroup v2 controllers", "internet", "windows host"})
"""What this project's CI machines lack: a skip for these is right there, any other is a failure."""


def require_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the effective user id is not 0")


def require_program(name: str, package: str = "") -> str:
    """The program's path, or a skip that names its package."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: not in PATH; apt-get install {package or name}")
    return found


def require(name: str, present: bool, found: str) -> None:
    if not present:
        pytest.skip(f"needs {name}: {found}")
