"""Listings: rows of named fields printed as a table, as JSON lines or by a template, as Docker's `--format` has it.

A listing's columns are (field, title); a template may use more fields than the table shows.
"""

from __future__ import annotations

import sys

from silo.cli.table import align, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Fields = Mapping[str, Any]
    Column = tuple[str, str]


def write(text: str) -> None:
    """To standard output; names that are not UTF-8 come out as they went in."""
    sys.stdout.write(text)


def print_lines(lines: Sequence[str]) -> None:
    if lines:
        write("\n".join(lines) + "\n")


def print_listing(rows: Sequence[Fields], columns: Sequence[Column], form: str, titles: Mapping[str, str]) -> None:
    """`form` is --format's word; `titles` are the titles of all fields, for `table {{…}}`."""
    print_lines(render_listing(rows, columns, form, titles))


def render_listing(
    rows: Sequence[Fields], columns: Sequence[Column], form: str, titles: Mapping[str, str]
) -> list[str]:
    """Lines. Raises Failure for a template that is not supported."""
    if form in ("", "table"):
        head = [title for _, title in columns]
        return align([head, *([clean(str(row[name])) for name, _ in columns] for row in rows)])
    if form == "json":
        from silo.cli.json_text import dumps

        return [dumps(dict(sorted(row.items()))) for row in rows]
    from silo.cli.failure import Failure
    from silo.cli.template import compile_template

    as_table = form.startswith("table ")
    render = compile_template(form.removeprefix("table "))
    try:
        if not as_table:
            return [render(_checked(row)) for row in rows]
        lines = [render(_checked(titles))] + [render(_checked(row)) for row in rows]
    except KeyError as error:
        known = ", ".join(sorted(titles))
        raise Failure(f"--format: there is no field {error.args[0]} (known: {known})") from None
    return align([line.split("\t") for line in lines])


class _Fields(dict[str, "Any"]):
    """A listing's fields are fixed: an unknown one is the user's error."""

    def get(self, name: str, _default: Any = None) -> Any:
        return self[name]


def _checked(row: Fields) -> _Fields:
    return _Fields(row)
