"""`events`."""

from __future__ import annotations

import sys

from silo.cli.client import encode_filters
from silo.cli.grammar import Command
from silo.cli.listing import print_lines
from silo.cli.moments import to_timestamp
from silo.cli.units import local_rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values


def describe(event: dict[str, Any]) -> str:
    """`2026-01-31T12:00:00.000000000Z container start 4f5… (image=busybox, name=web)`"""
    from silo.cli.table import clean

    nano = event.get("timeNano") or event.get("time", 0) * 10**9
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    text = f"{local_rfc3339(nano // 10**9, nano % 10**9)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    if attributes:
        text += " (" + ", ".join(f"{key}={value}" for key, value in sorted(attributes.items())) + ")"
    return clean(text)


def events(client: Client, values: Values) -> int:
    form = values.text("format")
    if form == "json":
        from silo.cli.json_text import dumps

        render = dumps
    elif form:
        from silo.cli.template import compile_template

        render = compile_template(form)  # type: ignore[assignment]  # both make text of an event
    else:
        render = describe  # type: ignore[assignment]  # as above
    query = {
        "since": to_timestamp(values.text("since")),
        "until": to_timestamp(values.text("until")),
        "filters": encode_filters(values.words("filter")),
    }
    for event in client.stream("GET", "/events", query):
        print_lines([render(event)])
        sys.stdout.flush()
    return 0


COMMANDS = (
    Command("events", "[OPTIONS]", "Get real time events from the daemon",
            (
                ("filter", "f", "list", "Filter the output (key=value)"),
                ("format", "", "string", "json, or a template such as '{{.Action}}'"),
                ("since", "", "string", "Show all events created since a time or a while"),
                ("until", "", "string", "Stream events until a time"),
            ), events, most=0, examples=("silo events --since 1h --filter event=die",)),
)  # fmt: skip
