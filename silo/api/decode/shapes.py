"""Strict decoding of Docker's JSON into structs.

Docker's own decoder takes member names in any case and null for everything; so does this one. A member that the struct does
not know is ignored when it says nothing (null, false, 0, "", [] or {}), and is otherwise refused by name: an option that
cannot be honoured must not look as if it were.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, TypeVar

import msgspec

from silo.errors import InvalidRequest, Unsupported

S = TypeVar("S", bound=msgspec.Struct)

MAX_DEPTH = 12
_decode = msgspec.json.Decoder().decode


def decode_struct(untrusted_body: bytes, kind: type[S], *, empty: bool = False) -> S:
    """Raises InvalidRequest (with the member's path) and Unsupported. `empty`: no body at all is an empty object."""
    if not untrusted_body.strip():
        if empty:
            return kind()
        raise InvalidRequest("the request's body is empty", hint="a JSON object is expected")
    try:
        found = _decode(untrusted_body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"invalid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest("invalid JSON: the body is not an object")
    try:
        return msgspec.convert(_clean(found, kind, "$"), kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"invalid JSON: {error}") from None


@cache
def _members(kind: type[msgspec.Struct]) -> dict[str, tuple[str, str, type[msgspec.Struct] | None]]:
    """Lower-case name → (name, how structs are nested: one, list, map or none, their type)."""
    hints = typing.get_type_hints(kind)
    return {name.lower(): (name, *_nesting(hints[name])) for name in kind.__struct_fields__}


def _nesting(hint: Any) -> tuple[str, type[msgspec.Struct] | None]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "one", hint
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for part in arguments if (found := _nesting(part))[0]), ("", None))
    if typing.get_origin(hint) is tuple and arguments:
        how, inner = _nesting(arguments[0])
        return ("list", inner) if how == "one" else ("", None)
    if typing.get_origin(hint) is dict:
        how, inner = _nesting(arguments[1])
        return ("map", inner) if how == "one" else ("", None)
    return "", None


def _clean(value: dict[str, Any], kind: type[msgspec.Struct], path: str) -> dict[str, Any]:
    members = _members(kind)
    result = {}
    for key, item in value.items():
        if item is None:
            continue
        known = members.get(key.lower())
        if known is None:
            if says_something(item):
                raise Unsupported(
                    f"{path.removeprefix('$.').removeprefix('$')}{'.' if path != '$' else ''}{key} is not supported"
                )
            continue
        name, how, inner = known
        here = f"{path}.{name}"
        if inner is not None:
            item = _clean_nested(item, how, inner, here)
        result[name] = item
    return result


def _clean_nested(item: Any, how: str, inner: type[msgspec.Struct], path: str) -> Any:
    if how == "one" and isinstance(item, dict):
        return _clean(item, inner, path)
    if how == "list" and isinstance(item, list):
        return [
            _clean(entry, inner, f"{path}[{n}]") if isinstance(entry, dict) else entry for n, entry in enumerate(item)
        ]
    if how == "map" and isinstance(item, dict):
        return {
            key: _clean(entry, inner, f"{path}.{key}") if isinstance(entry, dict) else {} if entry is None else entry
            for key, entry in item.items()
        }
    return item


def says_something(value: Any, depth: int = 0) -> bool:
    """Whether a JSON value differs from nothing; [0, 0] and {"a": ""} say nothing either."""
    if depth > MAX_DEPTH:
        return True
    if isinstance(value, dict):
        return any(says_something(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return any(says_something(item, depth + 1) for item in value)
    return bool(value)
