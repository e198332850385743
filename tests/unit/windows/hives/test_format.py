"""Hashes and hints of names."""

from __future__ import annotations

from silo.windows.hives.format import name_hash, name_hint


def test_hash_and_hint() -> None:
    # the first by hand: (65 * 37 + 66) * 37 + 67
    assert name_hash("abc") == name_hash("ABC") == 91494
    assert name_hash("") == 0
    assert name_hint("Software") == b"Soft"
    assert name_hint("é") == b"\xe9\0\0\0"
    assert name_hint("€uro") == bytes(4)
