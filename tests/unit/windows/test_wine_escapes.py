"""Escapes as Wine reads them."""

from __future__ import annotations

import pytest

from silo.windows.wine_escapes import unescape


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("plain", "plain"),
        (r"a\\b\"c\[1\]", 'a\\b"c[1]'),
        (r"\n\t\e\0", "\n\t\x1b\0"),
        (r"\1\17\1234", "\x01\x0fS4"),
        (r"\x20ac\xe9x\x", "€éxx"),
        (r"\xd83d\xde00", "\U0001f600"),
        (r"\xd83d!", "\ud83d!"),
    ],
)
def test_unescape(text: str, meant: str) -> None:
    assert unescape(text) == meant
