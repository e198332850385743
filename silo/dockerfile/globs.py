"""Go's file patterns with `**`, many at once, over one path in one pass: linear in the path however the patterns look.

All patterns are one automaton whose states are bits of an integer; sets of states that have been met are kept with what follows
from them (a lazy DFA), so a path costs one look-up for each of its characters. Because every directory above a path is a prefix
of it, the same pass tells which patterns match a parent.
Sources: https://pkg.go.dev/path/filepath#Match, https://docs.docker.com/build/concepts/context/#dockerignore-files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

MAXIMUM_PATTERN = 4096
"""Characters of one pattern."""
MAXIMUM_STATES = 1 << 16
"""Of all patterns together; about one for each character."""
_KEPT_BITS = 1 << 25
"""What is remembered is forgotten beyond this, so that hostile paths cost time, not memory."""

_Accepts = Callable[[str], bool]


class _State(NamedTuple):
    """A place within a pattern: which characters lead to the next place, which ones lead back here, and whether one may
    go on without any."""

    advances: _Accepts
    stays: _Accepts
    skips: tuple[int, ...] = ()
    """How many places further, without a character."""


def _no(_: str) -> bool:
    return False


def _any(_: str) -> bool:
    return True


def _not_slash(letter: str) -> bool:
    return letter != "/"


def _slash(letter: str) -> bool:
    return letter == "/"


def _literal(wanted: str) -> _Accepts:
    return lambda letter: letter == wanted


def has_wildcard(pattern: str) -> bool:
    """Whether a COPY source is a pattern: one of `*?[` that no backslash escapes."""
    position = 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] in "*?[":
            return True
        position += 1
    return False


class PatternSet:
    """Patterns, numbered in order. Construction raises ValueError, which says what is wrong, for a malformed one."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._states: list[_State] = []
        self._start = 0
        self._places: list[tuple[int, int]] = []
        """For each pattern the bit of the place after its end, and the bits of all its places."""
        for pattern in patterns:
            if len(pattern) > MAXIMUM_PATTERN:
                raise ValueError(f"a pattern has {len(pattern)} characters; at most {MAXIMUM_PATTERN} are possible")
            first = 1 << len(self._states)
            self._start |= first
            self._states += _compile(pattern)
            end = 1 << len(self._states)
            self._places.append((end, end * 2 - first))
            # The place after the end: nothing leads on from it.
            self._states.append(_State(advances=_no, stays=_no))
            if len(self._states) > MAXIMUM_STATES:
                raise ValueError(f"the patterns are longer than {MAXIMUM_STATES} characters together")
        self._ends = sum(end for end, _ in self._places)
        # An entry costs some hundred bytes besides its states.
        self._kept = _KEPT_BITS // (len(self._states) + 1024)
        self._masks: dict[str, tuple[int, int]] = {}
        self._known: dict[tuple[int, str], int] = {}
        self._skips = [(1, self._mask(lambda state: 1 in state.skips)), (2, self._mask(lambda state: 2 in state.skips))]
        self._start = self._closure(self._start)

    def match(self, path: str) -> frozenset[int]:
        """The numbers of the patterns that match the whole path."""
        states = self._start
        for letter in path:
            states = self._step(states, letter)
        return self._matched(states & self._ends)

    def match_with_parents(self, path: str) -> frozenset[int]:
        """The numbers of the patterns that match the path or a directory above it."""
        states = self._start
        found = 0
        for letter in path:
            if letter == "/":
                found |= states & self._ends
            states = self._step(states, letter)
        return self._matched(found | states & self._ends)

    def may_match_beneath(self, directory: str) -> frozenset[int]:
        """The numbers of the patterns that some path beneath the directory may match by itself."""
        states = self._start
        for letter in directory + "/":
            states = self._step(states, letter)
        return frozenset(number for number, (_, places) in enumerate(self._places) if states & places)

    def _matched(self, ends: int) -> frozenset[int]:
        if not ends:
            return frozenset()
        return frozenset(number for number, (end, _) in enumerate(self._places) if ends & end)

    def _step(self, states: int, letter: str) -> int:
        key = (states, letter)
        known = self._known.get(key)
        if known is None:
            advances, stays = self._letter(letter)
            known = self._closure((states & advances) << 1 | states & stays)
            if len(self._known) >= self._kept:
                self._known.clear()
            self._known[key] = known
        return known

    def _letter(self, letter: str) -> tuple[int, int]:
        masks = self._masks.get(letter)
        if masks is None:
            masks = self._mask(lambda state: state.advances(letter)), self._mask(lambda state: state.stays(letter))
            if len(self._masks) >= self._kept:
                self._masks.clear()
            self._masks[letter] = masks
        return masks

    def _mask(self, chosen: Callable[[_State], bool]) -> int:
        return int("".join("1" if chosen(state) else "0" for state in reversed(self._states)) or "0", 2)

    def _closure(self, states: int) -> int:
        while True:
            more = states
            for skips, mask in self._skips:
                more |= (states & mask) << skips
            if more == states:
                return states
            states = more


def _compile(pattern: str) -> list[_State]:
    """Docker's translation: `**` (with a slash after it) is any directories, at the end it is anything."""
    states: list[_State] = []
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if pattern.startswith("**", position - 1):
            position += 1 + pattern.startswith("/", position + 1)
            states += _anything() if _is_any_text(pattern, position) else _any_directories()
        elif letter == "*":
            states.append(_State(advances=_no, stays=_not_slash, skips=(1,)))
        elif letter == "?":
            states.append(_State(advances=_not_slash, stays=_no))
        elif letter == "[":
            accepts, position = _class(pattern, position)
            states.append(_State(advances=accepts, stays=_no))
        else:
            if letter == "\\":
                if position == len(pattern):
                    raise ValueError("a backslash at the end escapes nothing")
                letter = pattern[position]
                position += 1
            states.append(_State(advances=_literal(letter), stays=_no))
    return states


def _is_any_text(pattern: str, position: int) -> bool:
    """Whether the `**` before `position` is no directories but any text: at the end, and in `**name` without other marks."""
    rest = pattern[position:]
    return not rest or (position == 2 and not any(mark in rest for mark in "*?[]\\"))


def _anything() -> list[_State]:
    return [_State(advances=_no, stays=_any, skips=(1,))]


def _any_directories() -> list[_State]:
    """Nothing, or any text that ends with a slash."""
    return [_State(advances=_no, stays=_no, skips=(1, 2)), _State(advances=_slash, stays=_any)]


def _class(pattern: str, position: int) -> tuple[_Accepts, int]:
    """`[a-z]` or `[^a-z]`, from after the bracket; a backslash escapes. As in Go, `]` and `-` stand for nothing else."""
    is_negated = pattern.startswith("^", position)
    position += is_negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _class_letter(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_letter(pattern, position + 1)
        if high < low:
            raise ValueError(f"the range {low}-{high} is empty")
        ranges.append((low, high))
    chosen = tuple(ranges)
    return (lambda letter: any(low <= letter <= high for low, high in chosen) != is_negated), position + 1


def _class_letter(pattern: str, position: int) -> tuple[str, int]:
    letter = pattern[position : position + 1]
    if letter == "\\":
        position += 1
        letter = pattern[position : position + 1]
    elif letter and letter in "]-":
        raise ValueError(f"{letter} within [ ] must be escaped by a backslash")
    if not letter:
        raise ValueError("[ has no ] that closes it")
    return letter, position + 1
