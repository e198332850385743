"""Sizes, durations and times in Docker's words. Pure."""

from __future__ import annotations

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def human_size(count: float, digits: int = 3) -> str:
    """1234567 → 1.23MB."""
    return _scale(count, 1000.0, _DECIMAL, digits)


def binary_size(count: float, digits: int = 4) -> str:
    """1048576 → 1MiB."""
    return _scale(count, 1024.0, _BINARY, digits)


def _scale(count: float, base: float, units: tuple[str, ...], digits: int) -> str:
    value, index = float(count), 0
    while value >= base and index < len(units) - 1:
        value /= base
        index += 1
    return f"{value:.{digits}g}{units[index]}"


def human_duration(seconds: float) -> str:
    """Docker's words: Less than a second, 5 seconds, About a minute, 3 hours, 2 weeks."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 8760} years"


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0.0 for none (year 1, or not a time)."""
    if len(text) < 19 or text.startswith("0001-"):
        return 0.0
    try:
        year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
        seconds = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + float(text[17:19])
        rest = text[19:]
        digits = ""
        if rest.startswith("."):
            digits = rest[1:].rstrip("Z").split("+")[0].split("-")[0]
            rest = rest[1 + len(digits) :]
            seconds += float(f"0.{digits}")
        if rest and rest[0] in "+-":
            offset = int(rest[1:3]) * 3600 + int(rest[4:6]) * 60
            seconds += -offset if rest[0] == "+" else offset
        leap = 1 if month > 2 and ((year % 4 == 0 and year % 100 != 0) or year % 400 == 0) else 0
        years = year - 1970
        leaps = (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400 - 477
        return (years * 365 + leaps + _DAYS_BEFORE[month - 1] + leap + day - 1) * 86400 + seconds
    except (ValueError, IndexError):
        return 0.0


def local_time(seconds: float, fraction: str = "") -> str:
    """`2026-01-31 12:00:00 +0000 UTC`, as Docker's listings print a time; `fraction` is digits of a second."""
    import time

    moment = time.localtime(seconds)
    digits = fraction.rstrip("0")
    return time.strftime(f"%Y-%m-%d %H:%M:%S{'.' + digits if digits else ''} %z %Z", moment)


def local_rfc3339(seconds: float, nanoseconds: int = -1) -> str:
    """`2026-01-31T12:00:00+01:00`, with nine digits of a second if `nanoseconds` is given; Z for UTC."""
    import time

    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    fraction = f".{nanoseconds:09d}" if nanoseconds >= 0 else ""
    suffix = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + fraction + suffix


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last one … if something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def truncate_id(text: str) -> str:
    """`sha256:…` or a bare id → its first 12 digits."""
    return text.partition(":")[2][:12] if ":" in text else text[:12]
