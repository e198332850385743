"""Time as Docker writes it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")
ZERO_TIME = "0001-01-01T00:00:00Z"


def format_time(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def now() -> str:
    """The present in RFC 3339."""
    return format_time(time.time_ns())


def parse_time(text: str) -> int:
    """RFC 3339 (with up to nanoseconds) → nanoseconds since the epoch; 0 for the zero time. Raises ValueError."""
    if text == ZERO_TIME:
        return 0
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time in RFC 3339")
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone in ("Z", "z") else zone))
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])
