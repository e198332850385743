"""Docker's grammar of flags, driven by one table per command.

A row is (long name, short letter, kind, help). Kinds: bool, string, list, int, decimal, bytes, duration; `kind=value` gives the
default. Rows are plain tuples, so that a command's whole table is one constant of its compiled module: that is the
difference between 10 and 25 ms of start-up. Help, completion and docs/commands.md come from the same rows.

    --flag value  --flag=value  -f value  -fvalue  -it  --flag (bool)  --flag=false  --  - (an argument)
"""

from __future__ import annotations

from silo.cli.failure import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from silo.cli.client import Client

    Row = tuple[str, str, str, str]
    Runner = Callable[[Client, "Values"], int]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_SIZE_SHIFT = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_UNIT_NS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class Command:
    """One verb. `usage` is what follows the words (`[OPTIONS] CONTAINER [CONTAINER...]`); `least` and `most` count arguments
    (`most` < 0: no limit); `stops`: flags end at the first argument, for what follows belongs to the program in the container;
    `instead`: a flag that stands for all arguments; `passes`: every word belongs to another program, `--help` too.
    `takes` says what the arguments are, for completion: containers, images, networks, volumes, files, shells.
    """

    __slots__ = (
        "examples",
        "flags",
        "instead",
        "least",
        "most",
        "passes",
        "run",
        "stops",
        "summary",
        "takes",
        "usage",
        "words",
    )

    def __init__(
        self,
        words: str,
        usage: str,
        summary: str,
        flags: Sequence[Row],
        run: Runner,
        *,
        least: int = 0,
        most: int = -1,
        stops: bool = False,
        instead: str = "",
        passes: bool = False,
        takes: str = "",
        examples: Sequence[str] = (),
    ) -> None:
        self.words = words
        self.usage = usage
        self.summary = summary
        self.flags = flags
        self.run = run
        self.least = least
        self.most = most
        self.stops = stops
        self.instead = instead
        self.passes = passes
        self.takes = takes
        self.examples = examples


class Values:
    """Parsed words: what was given, else the table's default. The reading method has to fit the row's kind."""

    __slots__ = ("_kinds", "_values", "arguments", "given")

    def __init__(self, flags: Sequence[Row]) -> None:
        self._kinds = {row[0]: row[2] for row in flags}
        self._values: dict[str, list[str]] = {}
        self.arguments: list[str] = []
        self.given: set[str] = set()

    def add(self, name: str, text: str) -> None:
        self.given.add(name)
        self._values.setdefault(name, []).append(text)

    def words(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str) -> str:
        given = self._values.get(name)
        return given[-1] if given else self._kinds[name].partition("=")[2]

    def flag(self, name: str) -> bool:
        return self.text(name) in _TRUE

    def number(self, name: str) -> int:
        return int(self.text(name) or "0")

    def size(self, name: str) -> int:
        return parse_size(self.text(name))

    def duration_ns(self, name: str) -> int:
        return parse_duration_ns(self.text(name) or "0s")


def parse(command: Command, words: Sequence[str]) -> Values:
    """The words after the verb. Raises UsageError; `--help` is kept as the given flag `help`."""
    values = Values(command.flags)
    if command.passes:
        values.arguments.extend(words[1:] if words[:1] == ["--"] else words)
        return values
    names = {row[0]: row for row in command.flags}
    letters = {row[1]: row for row in command.flags if row[1]}
    arguments = values.arguments
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            arguments.extend(words[index:])
            break
        if word == "-" or not word.startswith("-"):
            arguments.append(word)
            if command.stops:
                arguments.extend(words[index:])
                break
        elif word.startswith("--"):
            index = _parse_long(command, names, values, word, words, index)
        else:
            index = _parse_short(command, letters, values, word, words, index)
        if "help" in values.given:
            return values
    if command.instead in values.given:
        if arguments:
            raise UsageError(f"--{command.instead} stands for {command.usage.partition('] ')[2]}{_see(command)}")
    else:
        _check_count(command, arguments)
    return values


def _parse_long(
    command: Command, names: dict[str, Row], values: Values, word: str, words: Sequence[str], index: int
) -> int:
    name, equals, text = word[2:].partition("=")
    row = names.get(name)
    if row is None:
        if name == "help":
            values.given.add("help")
            return index
        raise UsageError(
            f"unknown flag: --{name}{suggest('--' + name, ['--' + known for known in names])}{_see(command)}"
        )
    if not equals:
        if row[2].startswith("bool"):
            text = "true"
        else:
            if index >= len(words):
                raise UsageError(f"flag needs an argument: --{name}{_see(command)}")
            text = words[index]
            index += 1
    _store(command, row, f"--{name}", text, values)
    return index


def _parse_short(
    command: Command, letters: dict[str, Row], values: Values, word: str, words: Sequence[str], index: int
) -> int:
    position = 1
    while position < len(word):
        letter = word[position]
        row = letters.get(letter)
        position += 1
        if row is None:
            if letter == "h" and "h" not in letters:
                values.given.add("help")
                return index
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}{_see(command)}")
        rest = word[position:]
        if row[2].startswith("bool") and not rest.startswith("="):
            _store(command, row, f"-{letter}", "true", values)
            continue
        text = rest[1:] if rest.startswith("=") else rest
        if not rest:
            if index >= len(words):
                raise UsageError(f"flag needs an argument: '{letter}' in {word}{_see(command)}")
            text = words[index]
            index += 1
        _store(command, row, f"-{letter}", text, values)
        break
    return index


def _store(command: Command, row: Row, shown: str, text: str, values: Values) -> None:
    kind = row[2].partition("=")[0]
    try:
        if kind == "bool" and text not in _TRUE + _FALSE:
            raise ValueError("it is true or false")
        if kind == "int":
            int(text)
        elif kind == "decimal":
            parse_decimal(text, 9)
        elif kind == "bytes":
            parse_size(text)
        elif kind == "duration":
            parse_duration_ns(text)
    except ValueError as error:
        reason = "it is a whole number" if kind == "int" else str(error)
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {reason}{_see(command)}') from None
    values.add(row[0], text)


def _check_count(command: Command, arguments: Sequence[str]) -> None:
    count, least, most = len(arguments), command.least, command.most
    if least <= count and (most < 0 or count <= most):
        return
    if most < 0:
        wanted = f"at least {least} argument{'s' if least > 1 else ''}"
    elif most == 0:
        wanted = "no arguments"
    elif least == most:
        wanted = f"{most} argument{'s' if most > 1 else ''}"
    elif count > most:
        wanted = f"at most {most} argument{'s' if most > 1 else ''}"
    else:
        wanted = f"at least {least} argument{'s' if least > 1 else ''}"
    verb = "accepts" if most == 0 else "requires"
    raise UsageError(
        f"'silo {command.words}' {verb} {wanted}\nUsage:  silo {command.words} {command.usage}".rstrip() + _see(command)
    )


def _see(command: Command) -> str:
    return f"\nSee 'silo {command.words} --help'."


def suggest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` when something known is near."""
    import difflib  # Loaded for an error only.

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def parse_size(text: str) -> int:
    """Bytes of `512m`, `1.5g`, `10KiB` (all by 1024, as Docker has it); -1 stays. Raises ValueError."""
    if text in ("", "-1"):
        return -1 if text else 0
    word = text.strip().lower()
    number = word.rstrip("bikmgtp ")
    suffix = word[len(number) :].strip()
    unit = suffix[:1]
    if unit not in _SIZE_SHIFT or suffix not in (unit, f"{unit}b", f"{unit}ib") or suffix in ("bb", "bib", "ib"):
        raise ValueError("a size such as 512m or 2g is expected")
    shift = _SIZE_SHIFT[unit]
    if not number.replace(".", "", 1).isdigit() or not number.isascii():
        raise ValueError("a size such as 512m or 2g is expected")
    return parse_decimal(number, 9) * (1 << shift) // 10**9


def parse_decimal(text: str, digits: int) -> int:
    """`1.5` with 9 digits → 1500000000. Raises ValueError."""
    whole, _, fraction = text.partition(".")
    sign = -1 if whole.startswith("-") else 1
    whole = whole.removeprefix("-").removeprefix("+") or "0"
    body = whole + fraction
    if not (body.isascii() and body.isdigit()) or len(fraction) > digits or text in (".", ""):
        raise ValueError(f"a decimal number of at most {digits} digits after the point is expected")
    return sign * int(whole + fraction.ljust(digits, "0"))


def parse_duration_ns(text: str) -> int:
    """`1h30m`, `1.5s`, `300ms` → nanoseconds. Raises ValueError."""
    if text == "0":
        return 0
    total, rest = 0, text
    while rest:
        number = ""
        while rest and (rest[0].isdigit() or rest[0] == "."):
            number, rest = number + rest[0], rest[1:]
        unit = ""
        while rest and not (rest[0].isdigit() or rest[0] == "."):
            unit, rest = unit + rest[0], rest[1:]
        if unit not in _UNIT_NS or not number:
            raise ValueError("a duration such as 300ms, 10s or 1m30s is expected")
        total += parse_decimal(number, 9) * _UNIT_NS[unit] // 10**9
    if not text:
        raise ValueError("a duration such as 300ms, 10s or 1m30s is expected")
    return total
