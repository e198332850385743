from __future__ import annotations

from pathlib import Path

import pytest

from silo.host import time_zones
from silo.host.time_zones import find_time_zone_rule


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = tmp_path / "zoneinfo"
    (table / "America").mkdir(parents=True)
    (table / "America" / "New_York").write_bytes(b"TZif2\0\0\nEST5EDT,M3.2.0,M11.1.0\n")
    (table / "Old").write_bytes(b"TZif\0no rule at its end")
    (table / "Text").write_bytes(b"hello\nEST5\n")
    (tmp_path / "secret").write_bytes(b"TZif2\nEST5\n")
    monkeypatch.setattr(time_zones, "_TABLE", table)
    return table


def test_a_name_becomes_its_rule() -> None:
    assert find_time_zone_rule("America/New_York") == "EST5EDT,M3.2.0,M11.1.0"


@pytest.mark.parametrize(
    "name", ["", "America", "Nowhere", "Old", "Text", "../secret", "/etc/localtime", "a" * 40, "A\0"]
)
def test_what_is_none(name: str) -> None:
    assert find_time_zone_rule(name) == ""
