"""`exec`: another program in a running container."""

from __future__ import annotations

import sys

from silo.cli.attach import Stream, check_terminal, shell_status
from silo.cli.client import container_path
from silo.cli.detach import parse_keys
from silo.cli.failure import ApiError, Failure
from silo.cli.grammar import Command
from silo.cli.http import quote
from silo.cli.terminal import terminal_size
from silo.cli.words import read_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values


def build_exec(values: Values) -> dict[str, Any]:
    """The body of POST /containers/X/exec; only what was said."""
    detached, tty = values.flag("detach"), values.flag("tty")
    body: dict[str, Any] = {"Cmd": values.arguments[1:]}
    optional = {
        "AttachStdin": values.flag("interactive") and not detached,
        "AttachStdout": not detached,
        "AttachStderr": not detached,
        "Tty": tty,
        "Detach": detached,
        "Privileged": values.flag("privileged"),
        "User": values.text("user"),
        "WorkingDir": values.text("workdir"),
        "DetachKeys": values.text("detach-keys"),
        "Env": read_environment(values.words("env-file"), values.words("env")),
    }
    body.update((name, value) for name, value in optional.items() if value)
    return body


def exec_(client: Client, values: Values) -> int:
    from silo.cli.commands.running import resize, start_status

    body = build_exec(values)
    tty, stdin = bool(body.get("Tty")), bool(body.get("AttachStdin"))
    keys = parse_keys(values.text("detach-keys"))
    starting: dict[str, Any] = {"Detach": values.flag("detach"), "Tty": tty}
    if tty and not values.flag("detach"):
        check_terminal(tty=tty, stdin=stdin)
        rows, columns = terminal_size()
        if rows and columns:
            body["ConsoleSize"] = starting["ConsoleSize"] = [rows, columns]
    number = client.post(container_path(values.arguments[0], "/exec"), json=body)["Id"]
    path = f"/exec/{quote(number)}"
    try:
        if values.flag("detach"):
            client.post(f"{path}/start", json=starting)
            return 0
        attached = client.request("POST", f"{path}/start", json=starting, hijack=True)
    except ApiError as error:
        status = start_status(error.message)
        raise Failure(error.message, status=status if status != 125 else 1) from None
    stream = Stream(
        attached, tty=tty, stdin=stdin, keys=keys, resize=lambda rows, columns: resize(client, path, rows, columns)
    )
    stream.run()
    if stream.detached:
        sys.stderr.write("read escape sequence\n")
        return 0
    return shell_status(int(client.get(f"{path}/json").get("ExitCode") or 0))


COMMANDS = (
    Command(
        "exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
        (
            ("detach", "d", "bool", "Run the command in the background"),
            ("detach-keys", "", "string", "Override the key sequence for detaching a container"),
            ("env", "e", "list", "Set environment variables"),
            ("env-file", "", "list", "Read in a file of environment variables"),
            ("interactive", "i", "bool", "Keep STDIN open even if not attached"),
            ("privileged", "", "bool", "Give extended privileges to the command"),
            ("tty", "t", "bool", "Allocate a terminal"),
            ("user", "u", "string", "User name or UID (<name|uid>[:<group|gid>])"),
            ("workdir", "w", "string", "Working directory inside the container"),
        ),
        exec_, least=2, stops=True, takes="containers",
        examples=("silo exec -it web sh", "silo exec -w C:\\data box cmd /c dir"),
    ),
)  # fmt: skip
