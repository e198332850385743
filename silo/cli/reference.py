"""docs/commands.md, made from the commands' tables: `python -m silo.cli.reference > docs/commands.md` (a test compares)."""

from __future__ import annotations

from silo.cli.help import flag_text, other_names
from silo.cli.index import GROUPS, HIDDEN, VERBS, load_command

HEAD = """# The commands of silo

Made from the command tables by `python -m silo.cli.reference`; do not edit.

`silo` is a client of the daemon's Docker Engine API. Verbs, flags, output and exit statuses are Docker's where the meaning
is Docker's. The daemon's socket is `unix:///run/silo/silo.sock`, or what `-H` or `SILO_HOST` say; when nobody answers on the
default one, the daemon is started. `--format` takes `table`, `json` and Go templates of fields: `{{.Names}}`, `{{json .}}`,
`{{range}}`, `{{if}}`, `{{index}}`, `{{join}}`, `{{upper}}`, `{{lower}}`, `{{len}}`. The shell gets the lowest eight bits of a
program's exit code, or 1 when they are zero and the code is not.
"""


def render() -> str:
    parts = [HEAD]
    for verb in sorted(verb for verb in VERBS if verb not in HIDDEN):
        command = load_command(verb)
        parts.append(f"## silo {verb}\n\n{command.summary}.\n\n    silo {verb} {command.usage}".rstrip() + "\n")
        others = other_names(command)
        if others:
            parts.append("Also: " + ", ".join(f"`silo {name}`" for name in others) + ".\n")
        if command.flags:
            rows = [flag_text(row) for row in command.flags]
            table = "\n".join(f"| `{left.strip()}` | {text.replace('|', '&#124;')} |" for left, text in rows)
            parts.append(f"| flag | |\n|---|---|\n{table}\n")
        if command.examples:
            parts.append("\n".join(f"    {example}" for example in command.examples) + "\n")
    groups = "\n".join(f"- `silo {name}`: {text}" for name, text in GROUPS.items())
    return "\n".join([*parts[:1], groups + "\n", *parts[1:]])


if __name__ == "__main__":
    print(render(), end="")
