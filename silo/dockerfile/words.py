"""How an instruction's arguments part into words: by white space, with quotes, as a JSON list, and what `<<` begins."""

from __future__ import annotations

import json
import re

import msgspec

from silo.dockerfile.mistakes import mistake
from silo.dockerfile.syntax import BACKSLASH

BLANKS = re.compile(r"[\t\v\f\r ]+")
_SPACE = re.compile(r"\s*")
_HEREDOC = re.compile(r"[0-9]*<<(-?)\s*([^<]+)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class HeredocStart(msgspec.Struct, frozen=True, kw_only=True):
    """A word such as `<<EOF` or `<<-"EOF"`: `expand` is False when it was quoted."""

    name: str
    strip_tabs: bool
    expand: bool


def split_blanks(text: str) -> tuple[str, ...]:
    """What white space parts; quotes mean nothing here."""
    return tuple(word for word in BLANKS.split(text) if word)


def parse_json_words(text: str, *, where: str) -> tuple[str, ...] | None:
    """The strings of a JSON list; None when it is no JSON list, which Docker then takes as text.

    Raises InvalidRequest for a list that holds something other than strings.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise mistake(where, "when using JSON array syntax, arrays must be comprised of strings only")
    # Half of a pair is not text; Go's decoder, which Docker uses, puts this in its place.
    return tuple(_SURROGATE.sub("�", item) for item in value)


def split_quoted(text: str, *, escape: str) -> tuple[str, ...]:
    """What white space outside quotes parts; quotes and escapes stay. An open quote reaches to the end."""
    words = []
    word: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        letter = text[position]
        position += 1
        if not quote and letter.isspace():
            if word:
                words.append("".join(word))
                word = []
            continue
        if letter == escape and quote != "'":
            if position == len(text):
                break  # an escape at the very end escapes nothing and is dropped
            letter += text[position]
            position += 1
        elif not quote and letter in "'\"":
            quote = letter
        elif letter == quote:
            quote = ""
        word.append(letter)
    if word:
        words.append("".join(word))
    return tuple(words)


def split_flags(text: str, *, escape: str) -> tuple[tuple[str, ...], str]:
    """The leading `--words` with quotes and escapes removed, and the text after them. A lone `--` ends them."""
    flags: list[str] = []
    position = 0
    while True:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches nothing at the least
        if not text.startswith("--", start):
            return tuple(flags), text[start:].strip()
        word, position = _read_unquoted(text, start, escape)
        if word == "--":
            return tuple(flags), text[position:].strip()
        flags.append(word)


def _read_unquoted(text: str, position: int, escape: str, *, literal: str = "") -> tuple[str, int]:
    """One word from `position` without its quotes, and where it ends. Within a `literal` quote nothing escapes."""
    word = []
    quote = ""
    while position < len(text):
        letter = text[position]
        if not quote and letter.isspace():
            break
        position += 1
        if letter == escape and not (quote and quote == literal):
            word.append(text[position : position + 1])
            position += 1
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        else:
            word.append(letter)
    return "".join(word), min(position, len(text))


def find_heredocs(text: str) -> tuple[HeredocStart, ...]:
    """The heredocs that a line begins, in order. Whatever the file's escape is, a backslash escapes here, as in Docker."""
    if "<<" not in text:
        return ()
    found = (parse_heredoc_word(word) for word in _split_shell(text))
    return tuple(start for start in found if start)


def parse_heredoc_word(word: str) -> HeredocStart | None:
    """`<<NAME` in its spellings; None for any other word (`cat<<EOF` and `<<<` begin none)."""
    match = _HEREDOC.fullmatch(word)
    if not match:
        return None
    quoted = match[2]
    name, end = _read_unquoted(quoted, 0, BACKSLASH, literal="'")
    if not name or end != len(quoted):
        return None
    return HeredocStart(name=name, strip_tabs=match[1] == "-", expand=not ("'" in quoted or '"' in quoted))


def _split_shell(text: str) -> tuple[str, ...]:
    """As split_quoted, but white space right after `<<` belongs to the word; nothing when a quote stays open."""
    joined = re.sub(r"<<[\t\r ]+", "<<", text)
    words = split_quoted(joined, escape=BACKSLASH)
    return words if all(_is_closed(word) for word in words[-1:]) else ()


def _is_closed(word: str) -> bool:
    quote = ""
    position = 0
    while position < len(word):
        letter = word[position]
        if letter == BACKSLASH and quote != "'":
            position += 1
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        position += 1
    return not quote
