"""`--since` and `--until`: a time, seconds since 1970, or a while ago. Pure but for the clock."""

from __future__ import annotations

from silo.cli.failure import UsageError
from silo.cli.grammar import parse_duration_ns
from silo.cli.units import parse_time


def to_timestamp(text: str) -> str:
    """`42m` → seconds since 1970 with nine digits; other forms too. Raises UsageError."""
    if not text:
        return ""
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        ago = parse_duration_ns(text)
    except ValueError:
        return _absolute(text)
    import time

    moment = time.time_ns() - ago
    return f"{moment // 10**9}.{moment % 10**9:09d}"


def _absolute(text: str) -> str:
    """RFC 3339 and its beginnings: 2026-01-31, 2026-01-31T12:00. Without a zone it is local time."""
    full = {10: "T00:00:00", 13: ":00:00", 16: ":00"}
    body, zone = text, ""
    if text.endswith("Z"):
        body, zone = text[:-1], "Z"
    elif len(text) > 16 and text[-6] in "+-" and text[-3] == ":":
        body, zone = text[:-6], text[-6:]
    body = body.replace(" ", "T", 1) + full.get(len(body), "")
    seconds = parse_time(body + (zone or "Z"))
    if not seconds:
        raise UsageError(f"invalid time {text!r}: 2026-01-31T12:00:00Z, seconds since 1970, or a while such as 42m")
    if not zone:
        import time

        # What this clock reading means here.
        guess = time.gmtime(seconds)
        seconds = time.mktime((*guess[:8], -1)) + seconds % 1
    whole = int(seconds)
    return f"{whole}.{int((seconds - whole) * 10**9):09d}"
