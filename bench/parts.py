"""A benchmark in parts: each is a method of a bench, and what one measured is not lost when another fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from bench.start import Outcome

After = Callable[[str, Outcome], None]
"""Gets the name of each part that is done and all that has been measured so far."""


class Bench(Protocol):
    """Has a method for each part, which takes the number of rounds."""

    outcome: Outcome


def chosen(only: Sequence[str], parts: Sequence[str]) -> Sequence[str]:
    """All parts, or those that were asked for. Raises SystemExit for one that there is not."""
    if unknown := set(only) - set(parts):
        raise SystemExit(f"no parts: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    return only or parts


def run_parts(bench: Bench, parts: Sequence[str], rounds: int, after: After) -> None:
    for name in parts:
        part: Callable[[int], None] = getattr(bench, name)
        try:
            part(rounds)
        except Exception as error:
            traceback.print_exc()
            bench.outcome.remarks.append(f"{name} could not be measured: {error}")
        after(name, bench.outcome)
