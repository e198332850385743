"""Signals by name or number."""

from __future__ import annotations

import signal as signals

from silo.errors import InvalidRequest


def parse_signal(text: str) -> int:
    """`SIGTERM`, `term`, `15` → 15. Raises InvalidRequest."""
    word = text.strip().upper()
    if word.isdigit() and 0 < int(word) < 65:
        return int(word)
    name = word if word.startswith("SIG") else f"SIG{word}"
    if name.startswith("SIGRTMIN+") and name[9:].isdigit():
        return signals.SIGRTMIN + int(name[9:])
    try:
        return signals.Signals[name].value
    except KeyError:
        raise InvalidRequest(f"Invalid signal: {text}") from None
