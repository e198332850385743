from __future__ import annotations

from pathlib import Path

import pytest

from silo.errors import HostError
from silo.isolation.process.probe import check_passable


def test_a_directory_that_nobody_may_pass_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "run"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    with pytest.raises(HostError, match="closed"):
        check_passable(inner)


def test_the_usual_places_can_be_passed() -> None:
    check_passable(Path("/run"))
