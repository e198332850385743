"""Errors as the user sees them: on standard error, after what was printed so far, with a prefix that is red on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys


def complain(message: str) -> None:
    """NO_COLOR and TERM=dumb are honoured."""
    with contextlib.suppress(OSError):
        # Whoever read our output may be gone; the message still matters.
        sys.stdout.flush()
    colour = "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb" and os.isatty(2)
    prefix = "\x1b[31msilo:\x1b[0m" if colour else "silo:"
    sys.stderr.write(f"{prefix} {message.rstrip()}\n")
