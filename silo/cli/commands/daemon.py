"""`daemon`: silod in the foreground."""

from __future__ import annotations

import os

from silo.cli.daemon_start import daemon_argv, daemon_environment
from silo.cli.failure import Failure
from silo.cli.grammar import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from silo.cli.client import Client
    from silo.cli.grammar import Values


def daemon(_client: Client, values: Values) -> int:
    """Becomes silod; its own flags follow the words."""
    if os.geteuid() != 0:
        raise Failure("silod must run as root: sudo silo daemon")
    argv = [*daemon_argv(), *values.arguments]
    try:
        os.execve(argv[0], argv, daemon_environment())
    except OSError as error:
        raise Failure(f"silod cannot be started: {argv[0]}: {error.strerror}") from None


COMMANDS = (
    Command("daemon", "[FLAGS OF SILOD]", "Run the daemon, silod, in the foreground", (), daemon, passes=True,
            examples=("silo daemon", "silo daemon --data-root /srv/silo --log-level debug", "silo daemon --help")),
)  # fmt: skip
