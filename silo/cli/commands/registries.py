"""`login`, `logout`: credentials of registries."""

from __future__ import annotations

import os
import sys

from silo.cli.credentials import DEFAULT_REGISTRY, remove_credentials, store_credentials
from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.listing import print_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from silo.cli.client import Client
    from silo.cli.grammar import Values


def _ask(prompt: str, *, secret: bool) -> str:
    if not os.isatty(0):
        raise UsageError("there is no terminal to ask on: use --username and --password-stdin")
    if secret:
        import getpass

        return getpass.getpass(prompt)
    sys.stdout.write(prompt)
    sys.stdout.flush()
    return sys.stdin.readline().strip()


def login(client: Client, values: Values) -> int:
    registry = values.arguments[0] if values.arguments else DEFAULT_REGISTRY
    registry = registry.removeprefix("https://").removeprefix("http://").rstrip("/") if values.arguments else registry
    if registry in ("docker.io", "index.docker.io", "index.docker.io/v1"):
        registry = DEFAULT_REGISTRY
    password = values.text("password")
    if values.flag("password-stdin"):
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not values.text("username"):
            raise UsageError("must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    user = values.text("username") or _ask("Username: ", secret=False)
    password = password or _ask("Password: ", secret=True)
    if not user or not password:
        raise Failure("the user name and the password must not be empty")
    answer = client.post("/auth", json={"username": user, "password": password, "serveraddress": registry})
    path = store_credentials(registry, user, password)
    sys.stderr.write(f"Your credentials are stored in {path}, readable by you only.\n")
    print_lines([str((answer or {}).get("Status") or "Login Succeeded")])
    return 0


def logout(_client: Client, values: Values) -> int:
    registry = values.arguments[0] if values.arguments else DEFAULT_REGISTRY
    if not remove_credentials(registry):
        raise Failure(f"not logged in to {registry}")
    print_lines([f"Removing login credentials for {registry}"])
    return 0


COMMANDS = (
    Command("login", "[OPTIONS] [SERVER]", "Authenticate to a registry",
            (
                ("password", "p", "string", "Password"),
                ("password-stdin", "", "bool", "Take the password from stdin"),
                ("username", "u", "string", "User name"),
            ), login, most=1, examples=("silo login registry.example:5000",)),
    Command("logout", "[SERVER]", "Log out from a registry", (), logout, most=1,
            examples=("silo logout registry.example:5000",)),
)  # fmt: skip
