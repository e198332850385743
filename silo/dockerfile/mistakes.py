"""How a mistake in a Dockerfile or .dockerignore is told: the file, the line, what is wrong, and the nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from silo.errors import InvalidRequest

_LONGEST_SHOWN = 80
_LONGEST_WORD = 40


def mistake(where: str, what: str, *, hint: str = "") -> InvalidRequest:
    """The error to raise: `Dockerfile:12: …`; `where` may be empty when the caller adds the place."""
    return InvalidRequest(f"{where}: {what}" if where else what, hint=hint)


def shown(untrusted: str) -> str:
    """What somebody wrote, quoted on one line and cut to a length that a person reads."""
    text = untrusted if len(untrusted) <= _LONGEST_SHOWN else untrusted[: _LONGEST_SHOWN - 1] + "…"
    return '"' + "".join(letter if letter.isprintable() else "�" for letter in text) + '"'


def nearest(untrusted: str, names: Iterable[str]) -> str:
    """`did you mean RUN?` for a word that is nearly one of `names`, else an empty text."""
    if len(untrusted) > _LONGEST_WORD:
        return ""
    found = difflib.get_close_matches(untrusted, list(names), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""
