"""The arguments of each instruction: text → words, by the instruction's own rule, and how many it takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.words import BLANKS, parse_heredoc_word, parse_json_words, split_blanks, split_quoted
from silo.errors import InvalidRequest

_Words = tuple[tuple[str, ...], bool]
"""The words, and whether they came as a JSON list."""


class _Given(msgspec.Struct, frozen=True):
    name: str
    text: str
    escape: str
    where: str

    def wrong(self, what: str, hint: str = "") -> InvalidRequest:
        return mistake(self.where, what, hint=hint)

    def listed(self) -> tuple[str, ...] | None:
        return parse_json_words(self.text, where=self.where)


_Rule = Callable[[_Given], _Words]


def parse_words(name: str, text: str, *, escape: str, where: str) -> tuple[tuple[str, ...], bool]:
    """`Instruction.words` and `Instruction.is_json` of one of INSTRUCTIONS. Raises InvalidRequest."""
    return INSTRUCTIONS[name](_Given(name, text, escape, where))


def _command(given: _Given) -> _Words:
    """Exec form, or the text as one word, which may be empty."""
    words = given.listed()
    return ((given.text,), False) if words is None else (words, True)


def _shell(given: _Given) -> _Words:
    words = given.listed()
    if words is None and given.text:
        raise given.wrong("SHELL requires the arguments to be in JSON form", 'such as SHELL ["cmd", "/S", "/C"]')
    if not words:
        raise given.wrong("SHELL requires at least one argument")
    return words, True


def _paths(given: _Given) -> _Words:
    listed = given.listed()
    words = split_blanks(given.text) if listed is None else listed
    if len(words) < 2:
        what = f"{given.name} requires at least two arguments"
        if words:
            what += ", but only one was provided. Destination could not be determined"
        raise given.wrong(what)
    if listed is None and parse_heredoc_word(words[-1]):
        raise given.wrong(f"{given.name} cannot accept a heredoc as a destination")
    return words, listed is not None


def _volumes(given: _Given) -> _Words:
    listed = given.listed()
    words = split_blanks(given.text) if listed is None else listed
    if not words:
        raise given.wrong("VOLUME requires at least one argument")
    if not all(word.strip() for word in words):
        raise given.wrong("VOLUME specified can not be an empty string")
    return words, listed is not None


def _blanks(given: _Given) -> _Words:
    words = split_blanks(given.text)
    if not words:
        raise given.wrong(f"{given.name} requires at least one argument")
    return words, False


def _whole(given: _Given) -> _Words:
    if not given.text:
        raise given.wrong(f"{given.name} requires exactly one argument")
    return (given.text,), False


def _pairs(given: _Given) -> _Words:
    """`NAME=value …`, or the old `NAME value`, whose value is all the rest."""
    words = split_quoted(given.text, escape=given.escape)
    if not words:
        raise given.wrong(f"{given.name} requires at least one argument")
    if "=" not in words[0]:
        key, *value = BLANKS.split(given.text, maxsplit=1)
        if not value:
            raise given.wrong(f"{given.name} must have two arguments", f"write {given.name} {shown(key)[1:-1]}=value")
        return (f"{key}={value[0]}",), False
    for word in words:
        if "=" not in word:
            what = f"can't find = in {shown(word)}: must be of the form name=value"
            raise given.wrong(what, "put a value that holds spaces in quotes")
        if word.startswith("="):
            raise given.wrong(f"{given.name} names can not be blank")
    return words, False


def _arguments(given: _Given) -> _Words:
    words = split_quoted(given.text, escape=given.escape)
    if not words:
        raise given.wrong("ARG requires at least one argument")
    if any(word.startswith("=") for word in words):
        raise given.wrong("ARG names can not be blank")
    return words, False


def _health(given: _Given) -> _Words:
    kind, *rest = BLANKS.split(given.text, maxsplit=1)
    match kind.upper():
        case "":
            raise given.wrong("HEALTHCHECK requires at least one argument", "CMD command, or NONE")
        case "NONE":
            if rest:
                raise given.wrong("HEALTHCHECK NONE takes no arguments")
            return ("NONE",), False
        case "CMD":
            words, is_json = _command(msgspec.structs.replace(given, text=rest[0] if rest else ""))
            if not any(words):
                raise given.wrong("missing command after HEALTHCHECK CMD")
            return ("CMD", *words), is_json
    raise given.wrong(f"unknown type {shown(kind)} in HEALTHCHECK", "try CMD")


INSTRUCTIONS: dict[str, _Rule] = {
    "ADD": _paths,
    "ARG": _arguments,
    "CMD": _command,
    "COPY": _paths,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _blanks,
    "FROM": _blanks,
    "HEALTHCHECK": _health,
    "LABEL": _pairs,
    "MAINTAINER": _whole,
    "ONBUILD": _whole,
    "RUN": _command,
    "SHELL": _shell,
    "STOPSIGNAL": _whole,
    "USER": _whole,
    "VOLUME": _volumes,
    "WORKDIR": _whole,
}
