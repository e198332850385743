"""`--chmod`: an octal mode, or chmod(1)'s symbolic one such as `u=rwX,go-w`. A missing `ugoa` is all of them, without umask."""

from __future__ import annotations

import re

import msgspec

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_OCTAL = re.compile(r"[0-7]+")
_MAXIMUM = 0o7777
_LONGEST = 200
# Which bits belong to user, group and others, and how far their rwx is shifted.
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


class _Action(msgspec.Struct, frozen=True):
    """One `who` `operator` `letters` of a symbolic mode."""

    who: str
    operator: str
    letters: str

    def bits(self, mode: int, before: int, is_directory: bool) -> int:
        if self.letters in _SHIFT and self.letters:
            copied = mode >> _SHIFT[self.letters] & 0o7
            return copied * 0o111
        bits = 0
        for letter in self.letters:
            if letter == "X":
                bits |= 0o111 if is_directory or before & 0o111 else 0
            else:
                bits |= _PERMISSIONS[letter]
        return bits


class ModeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What `--chmod` does to a file's mode."""

    absolute: int | None
    actions: tuple[_Action, ...] = ()

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """The new permission and special bits (07777) of a file that has `mode`."""
        if self.absolute is not None:
            return self.absolute
        before = mode = mode & _MAXIMUM
        for action in self.actions:
            scope = sum(_WHO[who] for who in action.who)
            # The sticky bit is nobody's own; only "o" alone does not reach it.
            scope |= 0 if action.who == "o" else 0o1000
            bits = action.bits(mode, before, is_directory) & scope
            if action.operator == "=":
                # A directory's sticky bit stays unless it is named.
                mode = mode & ~(scope & ~0o1000) | bits
            else:
                mode = mode | bits if action.operator == "+" else mode & ~bits
        return mode


def parse_mode(untrusted: str) -> ModeChange:
    """Raises ValueError, which says what is possible."""
    text = untrusted[: _LONGEST + 1]
    if _OCTAL.fullmatch(text):
        absolute = int(text, 8)
        if absolute > _MAXIMUM:
            raise ValueError("an octal mode is between 0 and 7777")
        return ModeChange(absolute=absolute)
    actions: list[_Action] = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if not match or len(text) > _LONGEST:
            raise ValueError("a mode is octal, such as 755, or symbolic, such as u=rwX,go=rX")
        who = "".join(sorted(set(match[1]))) or "a"
        who = "ugo" if "a" in who else who
        actions += [_Action(who, operator, letters) for operator, letters in _ACTION.findall(match[2])]
    return ModeChange(absolute=None, actions=tuple(actions))
