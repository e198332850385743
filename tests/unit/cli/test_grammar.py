"""Docker's grammar of flags."""

from __future__ import annotations

import pytest

from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command, Values, parse, parse_decimal, parse_duration_ns, parse_size
from silo.cli.index import ALIASES, VERBS, find_command, find_verb, load_command

FLAGS = (
    ("all", "a", "bool", ""),
    ("force", "f", "bool=true", ""),
    ("name", "n", "string=nobody", ""),
    ("env", "e", "list", ""),
    ("count", "c", "int", ""),
    ("memory", "m", "bytes", ""),
    ("wait", "", "duration", ""),
)


def _command(**more: object) -> Command:
    return Command("try", "[OPTIONS] X", "", FLAGS, lambda _client, _values: 0, **more)  # type: ignore[arg-type]


def _parse(*words: str, **more: object) -> Values:
    return parse(_command(**more), words)


def test_values_come_in_every_spelling() -> None:
    values = _parse("--name", "x", "-eA=b", "-e", "C=d", "--env=E=f", "-ac3", "--memory=1g", "--wait", "1m")
    assert values.text("name") == "x"
    assert values.words("env") == ["A=b", "C=d", "E=f"]
    assert values.flag("all")
    assert values.number("count") == 3
    assert values.size("memory") == 1 << 30
    assert values.duration_ns("wait") == 60 * 10**9


def test_defaults_and_explicit_booleans() -> None:
    values = _parse("--force=false", "-a=0")
    assert (values.flag("force"), values.flag("all"), values.text("name")) == (False, False, "nobody")
    assert _parse().flag("force")
    assert values.given == {"force", "all"}


def test_flags_may_follow_arguments_unless_a_program_begins_there() -> None:
    assert _parse("x", "-a").flag("all")
    values = _parse("x", "-a", "--nonsense", stops=True)
    assert (values.flag("all"), values.arguments) == (False, ["x", "-a", "--nonsense"])


def test_two_dashes_end_the_flags_and_one_is_an_argument() -> None:
    assert _parse("-", "--", "-a").arguments == ["-", "-a"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--nam",), "unknown flag: --nam; did you mean --name"),
        (("-z",), "unknown shorthand flag: 'z' in -z"),
        (("--name",), "needs an argument: --name"),
        (("-an",), "needs an argument: 'n' in -an"),
        (("--count", "many"), 'invalid argument "many"'),
        (("--all=perhaps",), "true or false"),
        (("--memory", "lots"), "512m"),
        (("--wait", "5"), "duration"),
    ],
)
def test_wrong_words_are_told(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        _parse(*words)
    assert caught.value.status == 125


@pytest.mark.parametrize(
    ("least", "most", "given", "said"),
    [
        (1, 1, 0, "requires 1 argument"),
        (2, 2, 3, "requires 2 arguments"),
        (1, -1, 0, "requires at least 1 argument"),
        (0, 0, 1, "accepts no arguments"),
        (1, 2, 3, "requires at most 2 arguments"),
    ],
)
def test_arguments_are_counted(least: int, most: int, given: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _parse(*["x"] * given, least=least, most=most)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("10", 10), ("10b", 10), ("1k", 1024), ("1.5g", 3 << 29), ("2KiB", 2048), ("3MB", 3 << 20), ("-1", -1)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["x", "1x", "1gg", "g", "1.2.3", "--1", "1 g b"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5400 * 10**9), ("1.5s", 15 * 10**8), ("300ms", 3 * 10**8), ("0", 0), ("5us", 5000)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


def test_decimals_are_exact() -> None:
    assert parse_decimal("0.1", 9) == 10**8
    with pytest.raises(ValueError, match="decimal"):
        parse_decimal("0.0000000001", 9)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_of_the_index_has_its_table(verb: str) -> None:
    command = load_command(verb)
    assert command.summary
    assert command.examples or verb == "__complete"
    names = [row[0] for row in command.flags]
    letters = [row[1] for row in command.flags if row[1]]
    assert len(names) == len(set(names))
    assert len(letters) == len(set(letters))
    assert {row[2].partition("=")[0] for row in command.flags} <= {
        "bool", "string", "list", "int", "decimal", "bytes", "duration",
    }  # fmt: skip
    assert all(row[3] for row in command.flags)


def test_second_names_lead_to_verbs() -> None:
    assert set(ALIASES.values()) <= set(VERBS)
    assert not set(ALIASES) & set(VERBS)
    assert find_verb(["container", "ls", "-a"]) == ("ps", 2)
    assert find_command(["image", "rm", "x"])[0].words == "rmi"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["rnu"], "did you mean run"), (["network", "lss"], "did you mean ls"), (["volume"], "needs a command: create")],
)
def test_unknown_verbs_are_told(words: list[str], said: str) -> None:
    with pytest.raises(Failure, match=said):
        find_command(words)


def test_words_of_another_program_are_passed_on() -> None:
    for words in (["--data-root", "/srv", "--help"], ["--", "--data-root", "/srv", "--help"]):
        values = parse(_command(passes=True), words)
        assert values.arguments == ["--data-root", "/srv", "--help"] and not values.given
