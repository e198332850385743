"""Docker's filters: `key=value` pairs, several values of a key mean any, several keys mean all (labels: all)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping

from silo.errors import InvalidRequest
from silo.model.clock import parse_time

Filters = Mapping[str, tuple[str, ...]]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def check_keys(filters: Filters, known: Iterable[str]) -> None:
    """Raises InvalidRequest naming the first unknown key."""
    allowed = frozenset(known)
    for key in filters:
        if key not in allowed:
            raise InvalidRequest(f"invalid filter '{key}'", hint=f"one of {', '.join(sorted(allowed))}")


def labels_match(labels: Mapping[str, str], filters: Filters) -> bool:
    """`label=key`, `label=key=value`, and `label!=` for the opposite."""
    for wanted, expected in ((True, filters.get("label", ())), (False, filters.get("label!", ()))):
        for text in expected:
            key, separator, value = text.partition("=")
            present = key in labels and (not separator or labels[key] == value)
            if present is not wanted:
                return False
    return True


def any_of(filters: Filters, key: str, matches: Callable[[str], bool]) -> bool:
    """Whether no value of `key` is given or one matches."""
    values = filters.get(key, ())
    return not values or any(matches(value) for value in values)


def parse_flag(text: str, name: str) -> bool:
    """true/false/1/0. Raises InvalidRequest."""
    lowered = text.lower()
    if lowered in ("1", "true", "t"):
        return True
    if lowered in ("0", "false", "f"):
        return False
    raise InvalidRequest(f"invalid filter '{name}={text}'", hint="true or false")


def parse_moment_ns(text: str) -> int:
    """A Unix time, RFC 3339, or a duration before now (`10m`, `1h30m`) → nanoseconds since the epoch."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
    if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", text):
        ago_s = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
        return time.time_ns() - int(ago_s * 1e9)
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidRequest(
            f"{text} is not a time", hint="RFC 3339, seconds since 1970, or a duration such as 10m"
        ) from None
