"""`--help` and `silo help`: rendered from the commands' tables."""

from __future__ import annotations

from silo.cli.index import ALIASES, GROUPS, HIDDEN, VERBS, find_verb, load_command
from silo.cli.listing import print_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from silo.cli.grammar import Command, Row

_COMMON = ("run", "exec", "ps", "build", "images", "pull", "logs", "stop", "rm", "cp", "base build")


def print_help(words: Sequence[str]) -> int:
    if not words:
        print_lines(overview())
    elif words[0] in GROUPS and len(words) == 1:
        print_lines(group_help(words[0]))
    else:
        verb, _ = find_verb(words)
        print_lines(command_help(load_command(verb)))
    return 0


def _titled(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return ["", f"{title}:", *(f"  {name:<{width}}{text}" for name, text in rows)]


def overview() -> list[str]:
    """All commands."""
    own = [verb for verb in VERBS if verb not in HIDDEN and " " not in verb and verb not in _COMMON]
    return [
        "Usage:  silo [-H HOST] COMMAND",
        "",
        "Run Windows and Linux programs in containers",
        *_titled("Common commands", [(verb, load_command(verb).summary) for verb in _COMMON]),
        *_titled("Groups", list(GROUPS.items())),
        *_titled("Commands", [(verb, load_command(verb).summary) for verb in sorted(own)]),
        *_titled(
            "Options",
            [
                (
                    "-H, --host HOST",
                    "The daemon's socket, unix:///path (also SILO_HOST; default unix:///run/silo/silo.sock)",
                ),
                ("-v, --version", "Print the version"),
                ("--help", "Print this help"),
            ],
        ),
        "",
        "silo help COMMAND tells more, with examples.",
    ]


def group_verbs(group: str) -> list[tuple[str, Command]]:
    """(word after the group's, command), sorted; second names of the same length only once."""
    names = {verb.split()[1]: verb for verb in VERBS if verb.startswith(f"{group} ")}
    shown = {"list", "remove"}
    if group == "container":
        shown.add("ps")
    names |= {
        alias.split()[1]: verb
        for alias, verb in ALIASES.items()
        if alias.startswith(f"{group} ") and alias.split()[1] not in shown
    }
    return [(name, load_command(verb)) for name, verb in sorted(names.items())]


def group_help(group: str) -> list[str]:
    rows = [(name, command.summary) for name, command in group_verbs(group)]
    return [f"Usage:  silo {group} COMMAND", "", GROUPS[group], *_titled("Commands", rows)]


def flag_text(row: Row) -> tuple[str, str]:
    """(`-v, --volume list`, help with the default)"""
    name, letter, kind, text = row
    kind, _, default = kind.partition("=")
    left = (f"-{letter}, " if letter else "    ") + f"--{name}" + ("" if kind == "bool" else f" {kind}")
    shown = f' (default "{default}")' if kind == "string" else f" (default {default})"
    return left, text + (shown if default else "")


def other_names(command: Command) -> list[str]:
    return [alias for alias, verb in ALIASES.items() if verb == command.words]


def command_help(command: Command) -> list[str]:
    lines = [f"Usage:  silo {command.words} {command.usage}".rstrip(), "", command.summary]
    others = other_names(command)
    if others:
        lines += ["", "Also:   " + ", ".join(f"silo {name}" for name in others)]
    if command.flags:
        lines += _titled("Options", [flag_text(row) for row in command.flags])
    if command.examples:
        lines += ["", "Examples:", *(f"  {example}" for example in command.examples)]
    return lines
