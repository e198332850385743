"""Durations, ports and sizes as Docker writes them in a Dockerfile. Every function raises ValueError, which says what is wrong."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 100
_MAXIMUM_DURATION_S = 2**63 / 1e9
"""Docker counts nanoseconds in 64 bits."""
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT = re.compile(r"[0-9]{1,5}")


def parse_duration_s(untrusted: str) -> float:
    """Go's durations in seconds: `1m30s`, `500ms`, `0`."""
    if untrusted == "0":
        return 0.0
    position = 0
    seconds = 0.0
    text = untrusted[:_LONGEST]
    while match := _DURATION.match(text, position):
        seconds += float(match[1]) * _UNIT_S[match[2]]
        position = match.end()
    if not position or position != len(untrusted):
        raise ValueError("a duration is a number with a unit, such as 1m30s; units are ms, s, m and h")
    if seconds >= _MAXIMUM_DURATION_S:
        raise ValueError("the duration is longer than 292 years")
    return seconds


def parse_size_bytes(untrusted: str) -> int:
    """A size in bytes: `64m` is 64 MiB."""
    match = _SIZE.fullmatch(untrusted[:_LONGEST])
    if not match:
        raise ValueError("a size is a number with a unit, such as 64m; units are k, m, g, t and p")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_ports(untrusted: str) -> tuple[str, ...]:
    """`80`, `80/udp` or `7000-7010/tcp` → `80/tcp` …, one for each port of a range.

    `host:80` is the container's port 80, as in Docker: only `docker run -p` publishes (the parser warns of it).
    """
    ports, _, protocol = untrusted.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"the protocol is one of {', '.join(_PROTOCOLS)}")
    low, dash, high = ports.partition("-")
    if not _PORT.fullmatch(low) or (dash and not _PORT.fullmatch(high)):
        raise ValueError("a port is a number or a range, such as 8080 or 7000-7010")
    first, last = int(low), int(high or low)
    if last > 65535 or first > last:
        raise ValueError("ports go from 0 to 65535, the lower one first")
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))
