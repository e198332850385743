"""Times and durations as Docker's clients print them."""

from __future__ import annotations

import time

from silo.model.clock import ZERO_TIME, parse_time


def unix_seconds(text: str) -> int:
    """RFC 3339 → whole seconds since the epoch; 0 for nothing and for the zero time."""
    if not text or text == ZERO_TIME:
        return 0
    try:
        return parse_time(text) // 1_000_000_000
    except ValueError:
        return 0


def ago(text: str) -> str:
    """How long before now, in Docker's words (`About an hour`)."""
    return human_duration(max(0.0, time.time() - unix_seconds(text)))


def human_duration(seconds: float) -> str:
    """Docker's own scale, so that `docker ps` reads as users know it."""
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
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
