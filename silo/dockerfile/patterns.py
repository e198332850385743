"""The patterns of `${a#p}` and its kin: `?` is any character, `*` any number of them. Linear in the value's length.

A pattern is runs of fixed length between stars. The earliest match of each run in turn gives the shortest match of the whole,
and the latest match of the last run the longest: no backtracking is ever needed.
"""

from __future__ import annotations

import re

import msgspec

from silo.dockerfile.syntax import BACKSLASH

MAXIMUM_PATTERN = 1000
"""Characters; a bound for the time of one search."""
MAXIMUM_REPLACED = 1 << 20
"""Characters that all replacements of one value may add."""

_WILD_ONE = "?"
_Run = tuple[str, ...]
"""A compiled run's items: "" is any character, else the character itself."""


class _Pattern(msgspec.Struct, frozen=True):
    runs: tuple[_Run, ...]

    def reversed(self) -> _Pattern:
        return _Pattern(tuple(run[::-1] for run in self.runs[::-1]))


def remove_prefix(value: str, pattern: str, *, longest: bool, escape: str = BACKSLASH) -> str:
    """The value without what the pattern matches at its beginning. Raises ValueError for a malformed pattern."""
    return _remove_prefix(value, _parse(pattern, escape), longest)


def remove_suffix(value: str, pattern: str, *, longest: bool, escape: str = BACKSLASH) -> str:
    """The value without what the pattern matches at its end. Raises ValueError for a malformed pattern."""
    return _remove_prefix(value[::-1], _parse(pattern, escape).reversed(), longest)[::-1]


def replace_pattern(value: str, pattern: str, replacement: str, *, everywhere: bool, escape: str = BACKSLASH) -> str:
    """The value with the first or every longest match replaced. Raises ValueError, also for too much text."""
    parsed = _parse(pattern, escape)
    if len(parsed.runs) == 1:
        found = _compile(parsed.runs[0])
        times = sum(1 for _ in found.finditer(value)) if everywhere else 1
        if times * len(replacement) > MAXIMUM_REPLACED:
            raise ValueError(f"its replacements would make more than {MAXIMUM_REPLACED} characters")
        return found.sub(lambda _: replacement, value, count=0 if everywhere else 1)
    # A pattern with a star that matches, matches up to the last place where its last run does: once is every time.
    start = _search(_compile(parsed.runs[0]), value, 0)
    end = _end(value, parsed, start, longest=True) if start is not None else None
    return value if start is None or end is None else value[:start] + replacement + value[end:]


def _remove_prefix(value: str, pattern: _Pattern, longest: bool) -> str:
    if not _compile(pattern.runs[0]).match(value):
        return value
    end = _end(value, pattern, 0, longest)
    return value if end is None else value[end:]


def _end(value: str, pattern: _Pattern, start: int, longest: bool) -> int | None:
    """Where a match that begins at `start`, at which the first run matches, ends."""
    first, *others = pattern.runs
    position = start + len(first)
    for index, run in enumerate(others):
        if longest and index == len(others) - 1:
            return _last_end(value, run, position)
        found = _search(_compile(run), value, position)
        if found is None:
            return None
        position = found + len(run)
    return position


def _last_end(value: str, run: _Run, position: int) -> int | None:
    backwards = value[position:][::-1]
    found = _search(_compile(run[::-1]), backwards, 0)
    return None if found is None else len(value) - found


def _search(run: re.Pattern[str], value: str, position: int) -> int | None:
    found = run.search(value, position)
    return found.start() if found else None


def _compile(run: _Run) -> re.Pattern[str]:
    return re.compile("".join(re.escape(item) if item else "." for item in run), re.DOTALL)


def _parse(pattern: str, escape: str) -> _Pattern:
    if len(pattern) > MAXIMUM_PATTERN:
        raise ValueError(f"it has {len(pattern)} characters; at most {MAXIMUM_PATTERN} are possible")
    runs: list[list[str]] = [[]]
    letters = iter(pattern)
    for letter in letters:
        if letter == "*":
            runs.append([])
        elif letter == _WILD_ONE:
            runs[-1].append("")
        elif letter in (escape, BACKSLASH):
            runs[-1] += _escaped(letter, next(letters, ""), escape)
        else:
            runs[-1].append(letter)
    return _Pattern(tuple(tuple(run) for run in runs))


def _escaped(mark: str, letter: str, escape: str) -> str:
    """What stands for `mark` and `letter`. With a backtick as the escape, a backslash is otherwise a path's."""
    if letter and letter in ("*", "?", "}", "/", escape, mark):
        return letter
    if escape == BACKSLASH:
        raise ValueError(f"\\{letter} is no escape; \\* \\? \\\\ \\/ and \\}} are")
    return mark + letter
