"""Writes the table of routes into docs/api.md: `python -m silo.api.document docs/api.md`. A test compares the two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from silo.api.routes import build_routes
from silo.api.routing import Route

BEGIN = "<!-- the table of routes: written by `python -m silo.api.document` -->\n"
END = "<!-- end of the table -->\n"


def render_table(routes: Sequence[Route]) -> str:
    """Served calls, then the calls that are known and refused by 501."""
    served = [f"| {row.title} | `{row.method} {_shown(row)}` |" for row in routes if row.handler is not None]
    lacking: dict[str, list[str]] = {}
    for row in routes:
        if row.handler is None:
            lacking.setdefault(row.title, []).append(f"`{row.method} {_shown(row)}`")
    refused = [f"| {title} | {', '.join(calls)} |" for title, calls in lacking.items()]
    head = "| {} | call |\n|---|---|\n"
    return (
        "### Served\n\n" + head.format("what for") + "\n".join(served)
        + "\n\n### Known and refused (501)\n\n" + head.format("what") + "\n".join(refused) + "\n"
    )  # fmt: skip


def _shown(route: Route) -> str:
    return route.pattern.replace("{name*}", "{name}")


class _NoEngine:
    """Stands in for the engine: the table is built, and nothing is called."""

    def __getattr__(self, name: str) -> _NoEngine:
        return self


def main(path: Path) -> None:
    """Replace the table between the two marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    routes = build_routes(cast(Any, _NoEngine()))
    path.write_text(before + BEGIN + render_table(routes) + END + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
