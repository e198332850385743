"""JSON by the C parts of the standard library alone: `import json` loads `re` and `enum`, 4 ms for what a listing does in one.

`_json` is CPython's own and not promised to stay; without it the public module is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the C scanner reads of a decoder."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's interface


def loads(text: str | bytes) -> Any:
    """Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)
    text = text.strip()
    try:
        value, end = make_scanner(_Context())(text, 0)  # type: ignore[arg-type]  # any object with these members will do
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("not JSON: text after the value")
    return value


def _string(text: str) -> str:
    from _json import encode_basestring

    return encode_basestring(text)


def dumps(value: Any, *, indent: str = "", pad: str = "") -> str:
    """Compact, or one member a line with `indent`; for what `loads` gives."""
    if isinstance(value, str):
        return _string(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    inner = pad + indent
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        parts = [_string(str(key)) + colon + dumps(item, indent=indent, pad=inner) for key, item in value.items()]
        return _join("{", parts, "}", indent, inner, pad)
    if isinstance(value, list | tuple):
        return _join("[", [dumps(item, indent=indent, pad=inner) for item in value], "]", indent, inner, pad)
    raise TypeError(f"{type(value).__name__} has no JSON")


def _join(opening: str, parts: list[str], closing: str, indent: str, inner: str, pad: str) -> str:
    if not parts:
        return opening + closing
    if not indent:
        return opening + ",".join(parts) + closing
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{pad}{closing}"
