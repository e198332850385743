"""Docker's filters and times."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.engine.filters import any_of, check_keys, labels_match, parse_flag, parse_moment_ns
from silo.errors import InvalidRequest
from silo.model.clock import ZERO_TIME, format_time, parse_time


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_round_trip(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


def test_docker_s_zero_time_and_offsets() -> None:
    assert parse_time(ZERO_TIME) == 0
    assert parse_time("2026-01-01T01:00:00+01:00") == parse_time("2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"label": ("a",)}, True),
        ({"label": ("a=1",)}, True),
        ({"label": ("a=2",)}, False),
        ({"label": ("a", "b")}, False),
        ({"label!": ("b",)}, True),
        ({"label!": ("a=1",)}, False),
    ],
)
def test_labels(filters: dict[str, tuple[str, ...]], expected: bool) -> None:
    assert labels_match({"a": "1"}, filters) is expected


def test_moments() -> None:
    now = time.time_ns()
    assert abs(parse_moment_ns("1h30m") - (now - 5400 * 10**9)) < 10**9
    assert parse_moment_ns("12.5") == 12_500_000_000
    assert parse_moment_ns("2026-01-01T00:00:00Z") == parse_time("2026-01-01T00:00:00Z")
    with pytest.raises(InvalidRequest):
        parse_moment_ns("yesterday")


def test_keys_and_flags() -> None:
    with pytest.raises(InvalidRequest, match="invalid filter 'x'"):
        check_keys({"x": ()}, ("y",))
    assert parse_flag("True", "dangling") and not parse_flag("0", "dangling")
    with pytest.raises(InvalidRequest):
        parse_flag("maybe", "dangling")
    assert any_of({}, "name", lambda _: False) and not any_of({"name": ("a",)}, "name", lambda _: False)
