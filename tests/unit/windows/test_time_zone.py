"""Zones of Windows, read back by Python's own reader of the C library's files."""

from __future__ import annotations

import datetime
import io
import struct
import zoneinfo

import pytest

from silo.errors import InvalidRequest
from silo.windows.time_zone import build_localtime

NEVER = (0,) * 8
# year, month, weekday, week, hour, minute, second, millisecond
FIRST_SUNDAY_OF_NOVEMBER = (0, 11, 0, 1, 2, 0, 0, 0)
SECOND_SUNDAY_OF_MARCH = (0, 3, 0, 2, 2, 0, 0, 0)


def zone(bias: int, standard: tuple[int, ...] = NEVER, daylight: tuple[int, ...] = NEVER) -> bytes:
    return struct.pack("<3i8H8H", bias, 0, -60, *standard, *daylight)


def offsets(data: bytes) -> tuple[float, float]:
    """Hours east of UTC in January and July."""
    found = zoneinfo.ZoneInfo.from_file(io.BytesIO(data))
    return tuple(  # type: ignore[return-value]
        datetime.datetime(2026, month, 10, tzinfo=found).utcoffset().total_seconds() / 3600  # type: ignore[union-attr]
        for month in (1, 7)
    )


PACIFIC = zone(480, FIRST_SUNDAY_OF_NOVEMBER, SECOND_SUNDAY_OF_MARCH)


@pytest.mark.parametrize(
    ("name", "data", "daylight", "expected"),
    [
        ("Pacific Standard Time", PACIFIC, True, (-8, -7)),
        ("Pacific Standard Time", PACIFIC, False, (-8, -8)),
        ("Tokyo Standard Time", zone(-540), True, (9, 9)),
        ("India Standard Time", zone(-330), True, (5.5, 5.5)),
        ("UTC", zone(0), True, (0, 0)),
        ("Newfoundland Standard Time", zone(210, FIRST_SUNDAY_OF_NOVEMBER, SECOND_SUNDAY_OF_MARCH), True, (-3.5, -2.5)),
        # a rule of one year only, or of a month that is none, is no rule
        ("Odd", zone(60, (2026, *FIRST_SUNDAY_OF_NOVEMBER[1:]), SECOND_SUNDAY_OF_MARCH), True, (-1, -1)),
        ("Odd", zone(60, (0, 13, 0, 1, 2, 0, 0, 0), SECOND_SUNDAY_OF_MARCH), True, (-1, -1)),
    ],
)
def test_a_zone_has_its_offsets(name: str, data: bytes, daylight: bool, expected: tuple[float, float]) -> None:
    assert offsets(build_localtime(name, data, daylight=daylight)) == expected


def test_the_change_of_the_hour() -> None:
    found = zoneinfo.ZoneInfo.from_file(io.BytesIO(build_localtime("Pacific Standard Time", PACIFIC)))
    before = datetime.datetime(2026, 3, 8, 9, 59, tzinfo=datetime.UTC).astimezone(found)
    after = datetime.datetime(2026, 3, 8, 10, 1, tzinfo=datetime.UTC).astimezone(found)
    assert (before.hour, after.hour) == (1, 3)


def test_names_that_wine_knows() -> None:
    assert build_localtime("tokyo standard time", zone(-540)).endswith(b"\nJST-9\n")
    assert build_localtime("Other", zone(-540)).endswith(b"\n<+09>-9\n")


@pytest.mark.parametrize("data", [b"", bytes(43), zone(100_000)])
def test_what_is_no_zone(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        build_localtime("x", data)
