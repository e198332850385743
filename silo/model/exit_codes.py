"""Exit codes that Silo gives itself, as Docker and shells do."""

from __future__ import annotations

KILLED = 137
"""128 + SIGKILL: of a program that was killed, or whose end nobody saw."""
