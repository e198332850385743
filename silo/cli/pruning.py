"""What the prune commands share: the question before, and the account after."""

from __future__ import annotations

import sys

from silo.cli.listing import print_lines
from silo.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from silo.cli.grammar import Values


def confirm(warning: str, values: Values) -> bool:
    """Whether to go on: --force, or a y. No answer is no."""
    if values.flag("force"):
        return True
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stdout.write("\n")
    return answer.strip().lower() in ("y", "yes")


def print_reclaimed(parts: Sequence[tuple[str, Sequence[str]]], size: int) -> None:
    for title, names in parts:
        if names:
            print_lines([title, *names, ""])
    print_lines([f"Total reclaimed space: {human_size(size, 4)}"])
