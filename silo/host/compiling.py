"""Programs of our own, compiled from C once for each state of their sources."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from silo.errors import ToolMissing

FREESTANDING = (
    "-std=c17",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-nostdlib",
    "-s",
)
"""For a program without a C run-time library, of which the same sources and the same compiler give the same bytes."""


def compile_once(finished: Path, package: str, compile_in: Callable[[Path], Path]) -> Path:
    """`finished`, unless it is there made by `compile_in`, which gets a directory to work in and answers the program.

    Whole or not at all. `package` is what holds the compiler. Raises ToolMissing, CommandFailed.
    """
    if finished.exists():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=finished.parent, prefix=".building-") as work:
        try:
            output = compile_in(Path(work))
        except ToolMissing as error:
            raise ToolMissing(error.tool, package) from error
        output.replace(finished)
    return finished
