"""The part of Go's templates that people use with `--format`.

Known: `{{.Name}}`, `{{.A.B}}`, `{{.}}`, `{{json .A}}`, `{{upper|lower|len|println .A}}`, `{{join .A ","}}`,
`{{index .A "key"}}`, `{{range .A}}…{{end}}`, `{{range $key, $value := .A}}`, `{{if .A}}…{{else}}…{{end}}`, `{{"text"}}`,
and `\\t`, `\\n` outside. The rest is an error that shows the part: half a template understood would print wrong answers.
"""

from __future__ import annotations

from silo.cli.failure import Failure
from silo.cli.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scope = dict[str, Any]
    Node = Callable[[Scope], str]

_KNOWN = "fields such as {{.Name}}, json, upper, lower, len, join, index, range and if are known"


class Missing:
    """What a field that does not exist is; Go prints it as <no value>."""


_MISSING = Missing()
_STRICT = "strict"


def compile_template(text: str, *, strict: bool = False) -> Callable[[Any], str]:
    """A function from a value to its text. Raises Failure for what is not known.

    `strict`: printing a field that does not exist is a Failure, too, rather than <no value>.
    """
    tokens = _split(_unescape(text))
    nodes, rest, _ = _parse(tokens, 0, ())
    assert rest == len(tokens)

    def render(value: Any) -> str:
        scope = {".": value, "$": value, _STRICT: strict}
        return "".join(node(scope) for node in nodes)

    return render


def _unescape(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n")


def _split(text: str) -> list[tuple[bool, str]]:
    """(is an action, text) pieces; `{{-` and `-}}` trim."""
    pieces: list[tuple[bool, str]] = []
    trim = False
    while text:
        before, opening, text = text.partition("{{")
        if trim:
            before = before.lstrip()
        trim = False
        if not opening:
            pieces.append((False, before))
            break
        action, closing, text = text.partition("}}")
        if not closing:
            raise Failure("template parsing error: an action {{ is not closed by }}")
        if action.startswith("- "):
            before, action = before.rstrip(), action[2:]
        if action.endswith(" -"):
            trim, action = True, action[:-2]
        pieces.append((False, before))
        pieces.append((True, action.strip()))
    return [piece for piece in pieces if piece[0] or piece[1]]


def _parse(tokens: list[tuple[bool, str]], index: int, ends: tuple[str, ...]) -> tuple[list[Node], int, str]:
    """Nodes up to one of the `ends`, the index after it, and which one it was."""
    nodes: list[Node] = []
    while index < len(tokens):
        is_action, text = tokens[index]
        index += 1
        if not is_action:
            nodes.append(lambda _scope, text=text: text)  # type: ignore[misc]  # the default binds the loop's value
            continue
        word = text.split(None, 1)[0] if text else ""
        if word in ends:
            return nodes, index, word
        if word == "range":
            body, index, end = _parse(tokens, index, ("end", "else"))
            other: list[Node] = []
            if end == "else":
                other, index, _ = _parse(tokens, index, ("end",))
            nodes.append(_range(text[5:].strip(), body, other))
        elif word == "if":
            body, index, end = _parse(tokens, index, ("end", "else"))
            other = []
            if end == "else":
                other, index, _ = _parse(tokens, index, ("end",))
            nodes.append(_if(_expression(text[2:].strip()), body, other))
        elif word.startswith("/*"):
            continue
        else:
            evaluate = _expression(text)
            nodes.append(lambda scope, evaluate=evaluate, text=text: _output(evaluate(scope), text, scope))  # type: ignore[misc]  # as above
    if ends:
        raise Failure("template parsing error: {{end}} is missing")
    return nodes, index, ""


def _range(text: str, body: list[Node], other: list[Node]) -> Node:
    names, assigned, source = text.partition(":=")
    variables = [name.strip() for name in names.split(",")] if assigned else []
    if len(variables) > 2 or not all(name.startswith("$") for name in variables):
        raise _unknown(f"range {text}")
    evaluate = _expression((source if assigned else text).strip())

    def render(scope: Scope) -> str:
        value = evaluate(scope)
        if isinstance(value, dict):
            items: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        else:
            items = []
        parts: list[str] = []
        for key, item in items:
            inner = {**scope, ".": item}
            if len(variables) == 2:
                inner[variables[0]] = key
            if variables:
                inner[variables[-1]] = item
            parts.extend(node(inner) for node in body)
        if not items:
            parts.extend(node(scope) for node in other)
        return "".join(parts)

    return render


def _if(condition: Callable[[Scope], Any], body: list[Node], other: list[Node]) -> Node:
    def render(scope: Scope) -> str:
        value = condition(scope)
        chosen = body if value and not isinstance(value, Missing) else other
        return "".join(node(scope) for node in chosen)

    return render


def _words(text: str) -> list[str]:
    """Split at blanks outside of quotes and parentheses."""
    words, word, quote, depth = [], "", "", 0
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"`'":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter.isspace() and depth == 0:
            if word:
                words.append(word)
            word = ""
            continue
        word += letter
    if quote or depth:
        raise Failure(f"template parsing error: {{{{{text}}}}} is not balanced")
    return [*words, word] if word else words


def _expression(text: str) -> Callable[[Scope], Any]:
    stages = [part.strip() for part in text.split("|")] if "|" in text and '"' not in text else [text]
    evaluate = _call(_words(stages[0]), None, text)
    for stage in stages[1:]:
        evaluate = _call(_words(stage), evaluate, text)
    return evaluate


def _call(words: list[str], piped: Callable[[Scope], Any] | None, text: str) -> Callable[[Scope], Any]:
    if not words:
        raise _unknown(text)
    if len(words) == 1 and piped is None:
        return _operand(words[0], text)
    function = _FUNCTIONS.get(words[0])
    if function is None:
        raise _unknown(text)
    operands = [_operand(word, text) for word in words[1:]]
    if piped is not None:
        operands.append(piped)
    counts, apply = function
    if len(operands) not in counts:
        raise Failure(f"template parsing error: wrong number of arguments in {{{{{text}}}}}")
    return lambda scope: apply(*(operand(scope) for operand in operands))


def _operand(word: str, text: str) -> Callable[[Scope], Any]:
    if word.startswith("("):
        inner, _, path = word[1:].rpartition(")")
        if path and not path.startswith("."):
            raise _unknown(text)
        evaluate, steps = _expression(inner), path.split(".")[1:]
        return lambda scope: _field(evaluate(scope), steps)
    if word[:1] in ('"', "`") and word[-1:] == word[:1] and len(word) > 1:
        literal: Any = loads(word) if word[0] == '"' else word[1:-1]
        return lambda _scope: literal
    if word.isdigit():
        number = int(word)
        return lambda _scope: number
    root, dot, path = word.partition(".")
    if root.startswith("$"):
        names = path.split(".") if dot else []
        return lambda scope: _field(scope.get(root, _MISSING), names)
    if root or not dot:
        raise _unknown(text)
    names = path.split(".") if path else []
    if not all(name.replace("_", "a").isalnum() for name in names):
        raise _unknown(text)
    return lambda scope: _field(scope["."], names)


def _field(value: Any, names: list[str]) -> Any:
    for name in names:
        if isinstance(value, dict):
            value = value.get(name, _MISSING)
        elif value is not _MISSING:
            raise Failure(f"template: {name} is not a field: the value before it is not an object")
    return value


def _unknown(text: str) -> Failure:
    return Failure(f"this part of the template is not supported: {{{{{text}}}}} ({_KNOWN})")


def _output(value: Any, text: str, scope: Scope) -> str:
    if isinstance(value, Missing) and scope[_STRICT]:
        raise Failure(f"template: there is no field {{{{{text}}}}}")
    return _show(value)


def _show(value: Any) -> str:
    """As Go's fmt prints a value."""
    if isinstance(value, Missing) or value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_show(item) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    return "null" if isinstance(value, Missing) else dumps(value)


def _join(value: Any, separator: Any = "") -> str:
    if not isinstance(value, list):
        raise Failure("template: join wants a list")
    return str(separator).join(_show(item) for item in value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            # As of Go's maps of strings, which labels and the like are.
            value = value.get(key, "")
        elif isinstance(value, list):
            if not isinstance(key, int) or key >= len(value):
                raise Failure(f"template: index out of range: {key}")
            value = value[key]
        else:
            return _MISSING
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, dict | list | str) else 0


_FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "json": ((1,), _json),
    "upper": ((1,), lambda value: _show(value).upper()),
    "lower": ((1,), lambda value: _show(value).lower()),
    "len": ((1,), _length),
    "join": ((2,), _join),
    "index": ((2, 3, 4), _index),
    "println": ((1,), lambda value: _show(value) + "\n"),
    "not": ((1,), lambda value: not value or isinstance(value, Missing)),
    "eq": ((2,), lambda left, right: left == right),
    "ne": ((2,), lambda left, right: left != right),
}
