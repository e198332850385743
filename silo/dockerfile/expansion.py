"""Variables in an instruction's words, by the rules of the Dockerfile reference ("Environment replacement").

`$a ${a} ${a-w} ${a:-w} ${a+w} ${a:+w} ${a?w} ${a:?w} ${a#p} ${a##p} ${a%p} ${a%%p} ${a/p/r} ${a//p/r}`; words, patterns and
replacements may hold variables themselves. Quotes are removed: within single ones nothing is special; within double ones the
escape character works before `"`, `$` and itself only; elsewhere it takes the meaning of any next character.
Source: https://docs.docker.com/reference/dockerfile/#environment-replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.patterns import remove_prefix, remove_suffix, replace_pattern
from silo.dockerfile.syntax import BACKSLASH, Heredoc
from silo.errors import InvalidRequest

MAXIMUM_RESULT = 1 << 20
"""Characters. Values that are made of other values can double with every line; this ends it."""
MAXIMUM_DEPTH = 50
"""How deep `${a:-${b:-…}}` may be nested."""

EXPANDED = frozenset("ADD ARG COPY ENV EXPOSE FROM LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split())
"""Instructions whose words are expanded by the builder (ONBUILD: when its trigger runs); the others leave `$` to the shell."""

Expander = Callable[[str], str]
"""One word → the same with its variables filled in: `expand` with everything but the text settled."""

_SPECIAL_NAMES = frozenset("@*#?-$!")
_END = ""


def expand(
    text: str,
    variables: Mapping[str, str],
    *,
    escape: str,
    ignore_case: bool = False,
    where: str = "",
) -> str:
    """The text as one word: white space stays as it is. What is not set is empty.

    `ignore_case` is for Windows stages, where `$path` is `$Path`. `where` (`Dockerfile:3`) begins an error's brief.
    Raises InvalidRequest with the character's position for a bad substitution, for `${a:?message}`, and for too much text.
    """
    return _expansion(text, variables, escape, ignore_case, where).run()[0]


def expand_words(
    text: str,
    variables: Mapping[str, str],
    *,
    escape: str,
    ignore_case: bool = False,
    where: str = "",
) -> tuple[str, ...]:
    """As `expand`, then parted by white space that was in no quotes, also by that in values (EXPOSE). Raises InvalidRequest."""
    return _expansion(text, variables, escape, ignore_case, where).run()[1]


def expand_heredoc(
    heredoc: Heredoc, variables: Mapping[str, str], *, ignore_case: bool = False, where: str = ""
) -> str:
    """A heredoc's text as COPY and ADD write it: quotes stay, and a backslash escapes whatever the file's escape is."""
    if not heredoc.expand:
        return heredoc.text
    return _expansion(heredoc.text, variables, BACKSLASH, ignore_case, where, keeps_quotes=True).run()[0]


def _expansion(
    text: str,
    variables: Mapping[str, str],
    escape: str,
    ignore_case: bool,
    where: str,
    *,
    keeps_quotes: bool = False,
) -> _Expansion:
    return _Expansion(text, variables, escape, ignore_case, where, keeps_quotes)


class _Words:
    """What has been made so far, as one text and parted into words."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str, *, splits: bool) -> None:
        self.text.append(text)
        if not splits:
            self._word.append(text)
            return
        for letter in text:
            if letter.isspace():
                self.end_word()
            else:
                self._word.append(letter)

    def end_word(self) -> None:
        if word := "".join(self._word):
            self.words.append(word)
        self._word.clear()


class _Expansion:
    """One walk over one text."""

    def __init__(
        self, text: str, values: Mapping[str, str], escape: str, ignore_case: bool, where: str, keeps_quotes: bool
    ) -> None:
        self._text = text
        self._values = values
        self._folded: dict[str, str] | None = None
        self._escape = escape
        self._ignore_case = ignore_case
        self._where = where
        self._quotes = "" if keeps_quotes else "'\""
        self._position = 0
        self._depth = 0
        self._made = 0

    def run(self) -> tuple[str, tuple[str, ...]]:
        words = self._read_until(_END, keeps_escapes=False)
        words.end_word()
        return "".join(words.text), tuple(words.words)

    def _wrong(self, what: str, at: int | None = None, hint: str = "") -> InvalidRequest:
        place = (self._position if at is None else at) + 1
        return mistake(self._where, f"{what}, at character {place} of {shown(self._text)}", hint=hint)

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _take(self) -> str:
        letter = self._peek()
        self._position += len(letter)
        return letter

    def _count(self, text: str) -> str:
        self._made += len(text)
        if self._made > MAXIMUM_RESULT:
            raise self._wrong(f"the variables' values make more than {MAXIMUM_RESULT} characters")
        return text

    def _read_until(self, stop: str, *, keeps_escapes: bool, missing: str = "") -> _Words:
        """Up to `stop`, which is taken too; `_END` is the text's end."""
        words = _Words()
        start = self._position
        while letter := self._peek():
            if letter == stop:
                self._position += 1
                return words
            if letter == "$":
                words.add(self._dollar(), splits=True)
            elif letter in self._quotes:
                words.add(self._quoted(letter, keeps_escapes), splits=False)
            elif letter == self._escape:
                self._position += 1
                escaped = self._take()
                words.add((letter if keeps_escapes else "") + escaped, splits=False)
            else:
                self._position += 1
                words.add(letter, splits=True)
        if stop != _END:
            raise self._wrong(f"bad substitution: missing {missing or stop}", start - 1)
        return words

    def _quoted(self, quote: str, keeps_escapes: bool) -> str:
        start = self._position
        self._position += 1
        made: list[str] = []
        while letter := self._peek():
            if letter == quote:
                self._position += 1
                return "".join(made)
            if letter == "$" and quote == '"':
                made.append(self._dollar())
                continue
            self._position += 1
            if letter == self._escape and quote == '"' and self._peek() in ('"', "$", self._escape):
                letter = (letter if keeps_escapes else "") + self._take()
            made.append(letter)
        name = "double" if quote == '"' else "single"
        hint = "a name with blanks needs the JSON form" if name == "double" else f"escape it: {self._escape}{quote}"
        raise self._wrong(f"no matching {name}-quote", start, hint)

    def _dollar(self) -> str:
        start = self._position
        self._position += 1
        if self._peek() != "{":
            name = self._name()
            return self._count(self._lookup(name) or "") if name else "$"
        self._position += 1
        if self._depth == MAXIMUM_DEPTH:
            raise self._wrong(f"variables are nested deeper than {MAXIMUM_DEPTH}", start)
        self._depth += 1
        value = self._braced(start)
        self._depth -= 1
        return self._count(value)

    def _name(self) -> str:
        """A name, a number, or one special sign: positional and special parameters exist and are never set."""
        start = self._position
        first = self._peek()
        if first and first in _SPECIAL_NAMES:
            return self._take()
        belongs = str.isdigit if first.isdigit() else _belongs_to_name
        while (letter := self._peek()) and belongs(letter):
            self._position += 1
        return self._text[start : self._position]

    def _lookup(self, name: str) -> str | None:
        if not self._ignore_case:
            return self._values.get(name)
        if self._folded is None:
            self._folded = {each.upper(): value for each, value in self._values.items()}
        return self._folded.get(name.upper())

    def _braced(self, start: int) -> str:
        """What follows `${`."""
        name = self._name()
        if not name:
            raise self._wrong(
                "bad substitution: no variable's name after ${" if self._peek() else "bad substitution: missing }",
                start,
            )
        value = self._lookup(name)
        modifier = self._take()
        if modifier == ":":
            modifier += self._take()
        match modifier:
            case "}":
                return value or ""
            case "-" | ":-" | "+" | ":+" | "?" | ":?":
                word = "".join(self._read_until("}", keeps_escapes=False).text)
                is_set = bool(value) if modifier[0] == ":" else value is not None
                return self._choose(modifier[-1], name, value or "", word, is_set, start)
            case "#" | "%":
                pattern = "".join(self._read_until("}", keeps_escapes=True).text)
                return self._remove(modifier, value or "", pattern, start)
            case "/":
                return self._replace(value or "", start)
            case "" | ":":
                raise self._wrong("bad substitution: missing }", start)
        raise self._wrong(f"bad substitution: unsupported modifier {shown(modifier)}", start)

    def _choose(self, modifier: str, name: str, value: str, word: str, is_set: bool, start: int) -> str:
        if modifier == "+":
            return word if is_set else ""
        if is_set:
            return value
        if modifier == "-":
            return word
        message = word or "is not allowed to be unset or empty"
        raise self._wrong(f"{name}: {message}", start, f"set it, such as by --build-arg {name}=…")

    def _remove(self, modifier: str, value: str, pattern: str, start: int) -> str:
        is_longest = pattern.startswith(modifier)
        pattern = pattern[is_longest:]
        remove = remove_prefix if modifier == "#" else remove_suffix
        try:
            return remove(value, pattern, longest=is_longest, escape=self._escape)
        except ValueError as error:
            raise self._wrong(f"invalid pattern in substitution: {error}", start) from None

    def _replace(self, value: str, start: int) -> str:
        replaces_all = self._peek() == "/"
        self._position += replaces_all
        pattern = "".join(self._read_until("/", keeps_escapes=True, missing="/ after the pattern").text)
        replacement = "".join(self._read_until("}", keeps_escapes=True).text)
        try:
            return replace_pattern(value, pattern, replacement, everywhere=replaces_all, escape=self._escape)
        except ValueError as error:
            raise self._wrong(f"invalid pattern in substitution: {error}", start) from None


def _belongs_to_name(letter: str) -> bool:
    return letter.isalpha() or letter.isdigit() or letter == "_"
