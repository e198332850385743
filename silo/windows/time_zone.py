"""A Windows time zone as the C library's file /etc/localtime, where Wine takes a container's zone from. Pure.

The file has one moment long ago and then what its last line says, a rule as POSIX has it; `tzutil.exe` in the base writes the same.

Sources: RFC 8536 (TZif), POSIX (TZ); Microsoft, TIME_ZONE_INFORMATION and the registry's REG_TZI_FORMAT.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from silo.errors import InvalidRequest

_ZONE = struct.Struct("<3i8H8H")
_HEADER = struct.Struct(">4sc15x6I")
_LONG_AGO = -2147483647
# Wine tells zones of the same offset apart by their common names.
_COMMON_NAMES = {"TOKYO STANDARD TIME": "JST", "KOREA STANDARD TIME": "KST"}


class _Change(NamedTuple):
    """When a part of the year begins: SYSTEMTIME without a year; the fifth week is the last."""

    month: int
    weekday: int
    week: int
    hour: int
    minute: int
    second: int

    def rule(self) -> str:
        return f",M{self.month}.{self.week}.{self.weekday}/{self.hour}:{self.minute:02}:{self.second:02}"


def build_localtime(name: str, untrusted_zone: bytes, *, daylight: bool = True) -> bytes:
    """The file for a zone by its value `TZI` (44 bytes). `daylight` False: standard time all year. Raises InvalidRequest."""
    if len(untrusted_zone) != _ZONE.size:
        raise InvalidRequest(f"the time zone {name!r} is damaged: its TZI has {len(untrusted_zone)} bytes")
    bias, standard_bias, daylight_bias, *dates = _ZONE.unpack(untrusted_zone)
    standard, summer = bias + standard_bias, bias + daylight_bias
    if max(abs(standard), abs(summer)) > 24 * 60:
        raise InvalidRequest(f"the time zone {name!r} is damaged: it is more than a day from UTC")
    rule = _name(name, standard) + _offset(standard)
    autumn, spring = _change(dates[:8]), _change(dates[8:])
    if daylight and autumn is not None and spring is not None:
        rule += _name(name, summer) + _offset(summer) + spring.rule() + autumn.rule()
    return _block(-60 * standard, ">i") + _block(-60 * standard, ">q") + f"\n{rule}\n".encode("ascii")


def _change(date: list[int]) -> _Change | None:
    year, month, weekday, week, hour, minute, second, _ = date
    if year or not 1 <= month <= 12 or weekday > 6 or not 1 <= week <= 5 or hour > 24 or minute > 59 or second > 59:
        return None
    return _Change(month, weekday, week, hour, minute, second)


def _name(zone: str, minutes_west: int) -> str:
    common = _COMMON_NAMES.get(zone.upper())
    if common is not None:
        return common
    if not minutes_west:
        return "UTC"
    size = abs(minutes_west)
    return f"<{'+' if minutes_west < 0 else '-'}{size // 60:02}{f'{size % 60:02}' if size % 60 else ''}>"


def _offset(minutes_west: int) -> str:
    size = abs(minutes_west)
    return f"{'-' if minutes_west < 0 else ''}{size // 60}{f':{size % 60:02}' if size % 60 else ''}"


def _block(seconds_east: int, moment: str) -> bytes:
    """Header and data; the first block's moments have 4 bytes, the second's 8."""
    head = _HEADER.pack(b"TZif", b"2", 0, 0, 0, 1, 1, 4)
    return head + struct.pack(moment, _LONG_AGO) + b"\0" + struct.pack(">i2B", seconds_east, 0, 0) + b"STD\0"
