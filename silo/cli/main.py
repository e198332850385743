"""`silo`: from the words to a command, and from an exception to a sentence and an exit status.

Only the module of the verb in question is loaded: the start of this program is a good part of what `silo ps` takes.
"""

from __future__ import annotations

import os
import sys

from silo.cli.failure import DaemonUnreachable, Ended, Failure, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from silo.cli.grammar import Command

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # standard output is a text file here
    try:
        status = dispatch(arguments)
        sys.stdout.flush()
    except Ended as ended:
        sys.stdout.flush()
        return ended.status
    except Failure as failure:
        return _complain(failure.message, failure.status)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has had enough (`silo logs x | head`); the flush at the end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except OSError as error:
        name = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return _complain(f"{name}{error.strerror or error}", 1)
    return status


def _complain(message: str, status: int) -> int:
    from silo.cli.complaint import complain

    complain(message)
    return status


def dispatch(arguments: Sequence[str]) -> int:
    """Raises Failure."""
    from silo.cli.index import find_command

    host, index = "", 0
    while index < len(arguments) and arguments[index].startswith("-") and arguments[index] != "-":
        word = arguments[index]
        index += 1
        name, equals, value = word.partition("=")
        if name in ("-H", "--host"):
            if not equals:
                if index >= len(arguments):
                    raise UsageError(f"flag needs an argument: {name}")
                value = arguments[index]
                index += 1
            host = value
        elif word.startswith("-H"):
            host = word[2:]
        elif word in ("--help", "-h"):
            return _help([])
        elif word in ("--version", "-v"):
            import silo

            sys.stdout.write(f"Silo version {silo.__version__}\n")
            return 0
        else:
            from silo.cli.grammar import suggest

            raise UsageError(
                f"unknown flag: {word}{suggest(name, ('--host', '--help', '--version'))}\nSee 'silo --help'."
            )
    words = arguments[index:]
    if not words:
        return _help([])
    if words[0] == "help":
        return _help(words[1:])
    command, rest = find_command(words)
    return run_command(command, rest, host)


def run_command(command: Command, words: Sequence[str], host: str) -> int:
    from silo.cli.client import Client
    from silo.cli.grammar import parse

    values = parse(command, words)
    if "help" in values.given:
        return _help(command.words.split())
    try:
        return command.run(Client(host), values)
    except DaemonUnreachable as failure:
        if host or os.environ.get("SILO_HOST"):
            raise Failure(f"{failure.message}; start it with: silo daemon", status=failure.status) from None
        raise


def _help(words: Sequence[str]) -> int:
    from silo.cli.help import print_help

    return print_help(words)
