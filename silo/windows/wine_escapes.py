"""Escapes in Wine's registry text. Pure.

Source: Wine, server/unicode.c (parse_strW).
"""

from __future__ import annotations

import re

CONTROLS = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
OCTAL_DIGITS = frozenset("01234567")
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair."""

_ESCAPED = re.compile(r"\\(x[0-9a-fA-F]{1,4}|[0-7]{1,3}|.)", re.DOTALL)


def unescape(text: str) -> str:
    """What was meant; halves of a pair may stand alone, as on Windows."""
    if "\\" not in text:
        return text
    unescaped = _ESCAPED.sub(_unescaped, text)
    if SURROGATE.search(unescaped) is None:
        return unescaped
    # a pair is written as two escapes
    return unescaped.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in OCTAL_DIGITS:
        return chr(int(code, 8))
    return CONTROLS.get(code, code)
