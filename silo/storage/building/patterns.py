"""The wildcards of COPY and ADD: Go's filepath.Match, which never crosses a slash. Pure.

Source: the documentation of Go's path/filepath, "func Match".
"""

from __future__ import annotations

import re

from silo.errors import InvalidRequest

_SPECIAL = frozenset("*?[\\")


def has_wildcard(text: str) -> bool:
    """Whether a component is a pattern and not a name."""
    return any(character in _SPECIAL for character in text)


def compile_component(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """One component of a pattern as a regular expression for a whole name. Raises InvalidRequest."""
    built, index = [], 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            built.append(".*")
        elif character == "?":
            built.append(".")
        elif character == "[":
            piece, index = _compile_class(pattern, index)
            built.append(piece)
        elif character == "\\":
            if index >= len(pattern):
                raise _malformed(pattern, "it ends in a backslash")
            built.append(re.escape(pattern[index]))
            index += 1
        else:
            built.append(re.escape(character))
    return re.compile("".join(built), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _compile_class(pattern: str, index: int) -> tuple[str, int]:
    """`[a-z]`, `[^x]`; answers the expression and where it ends."""
    negated = pattern[index : index + 1] == "^"
    index += negated
    ranges: list[str] = []
    while index < len(pattern) and (pattern[index] != "]" or not ranges):
        low, index = _class_character(pattern, index)
        high = low
        if pattern[index : index + 1] == "-":
            high, index = _class_character(pattern, index + 1)
        if low > high:
            raise _malformed(pattern, f"the range {low}-{high} is empty")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if index >= len(pattern):
        raise _malformed(pattern, "a bracket is not closed")
    return f"[{'^' if negated else ''}{''.join(ranges)}]", index + 1


def _class_character(pattern: str, index: int) -> tuple[str, int]:
    if pattern[index : index + 1] in ("-", "]"):
        raise _malformed(pattern, "a range lacks one of its ends")
    if pattern[index : index + 1] == "\\":
        index += 1
    if index >= len(pattern):
        raise _malformed(pattern, "a bracket is not closed")
    return pattern[index], index + 1


def _malformed(pattern: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"the pattern {pattern!r} is malformed: {why}", hint="as Go's filepath.Match: * ? [a-z] \\x")
