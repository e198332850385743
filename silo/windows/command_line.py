"""Command lines as Windows programs take them apart: one string, split by each program itself, nearly always by the rules of
CommandLineToArgvW and the Microsoft C runtime. Pure.

Source: "Parsing C command-line arguments" and CommandLineToArgvW in Microsoft's documentation. A backslash is itself unless a run
of them ends in a double quote; 2n of them and a quote are n and a quote that opens or closes, 2n+1 are n and a literal quote.
"""

from __future__ import annotations

from collections.abc import Sequence

from silo.errors import InvalidRequest

MAXIMUM_LENGTH = 32766
"""UTF-16 units that CreateProcess accepts, without the terminator."""


def escape_argument(argument: str) -> str:
    """The argument in a form that is read back as exactly this argument, quoted only where it must be."""
    if argument and not any(character in ' \t\n\v"' for character in argument):
        return argument
    escaped = []
    backslashes = 0
    for character in argument:
        if character == "\\":
            backslashes += 1
            continue
        # before a quote every backslash counts double, elsewhere each is itself
        escaped.append("\\" * (backslashes * 2 + 1 if character == '"' else backslashes))
        backslashes = 0
        escaped.append(character)
    escaped.append("\\" * (backslashes * 2))
    return '"' + "".join(escaped) + '"'


def build_command_line(arguments: Sequence[str], *, first_is_escaped: bool = False) -> str:
    """One command line; with `first_is_escaped` (an image's ArgsEscaped) the first element stands as it is.

    Raises InvalidRequest when it is too long or holds a NUL.
    """
    program, *rest = arguments
    words = [program if first_is_escaped else escape_program(program), *map(escape_argument, rest)]
    line = " ".join(words)
    if "\0" in line:
        raise InvalidRequest("a command line cannot hold a NUL character")
    if len(line.encode("utf-16-le", "surrogatepass")) // 2 > MAXIMUM_LENGTH:
        raise InvalidRequest(f"the command line is longer than Windows allows ({MAXIMUM_LENGTH} characters)")
    return line


def escape_program(program: str) -> str:
    """The first word is split by other rules: quotes only delimit, nothing can escape one. Raises InvalidRequest."""
    if '"' in program:
        raise InvalidRequest(f"a program's name cannot hold a quote: {program}")
    return f'"{program}"' if not program or any(character in " \t\n\v" for character in program) else program
