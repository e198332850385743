"""From a method and a path to a handler.

Patterns: `{name}` stands for one segment, `{name*}` for one or more (image names hold slashes). Paths may begin with an API
version, `/v1.41/…`; without one the newest is meant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from silo.api.call import Call, Reply
from silo.errors import InvalidRequest

MIN_VERSION = (1, 24)
MAX_VERSION = (1, 50)

Handler = Callable[[Call], Awaitable[Reply | None]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row of the table. `title` is what the documentation calls it; `handler` None is a known call that is not supported."""

    method: str
    pattern: str
    title: str
    handler: Handler | None = None
    streaming: bool = False
    """The handler is of no use once the client is gone, and is cancelled then."""


def version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """The API version asked for, and the rest of the path. Raises InvalidRequest outside of the supported range."""
    if not path.startswith("/v"):
        return MAX_VERSION, path
    text, slash, rest = path[2:].partition("/")
    major, dot, minor = text.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(text) < 12):
        return MAX_VERSION, path
    version = (int(major), int(minor))
    if version < MIN_VERSION:
        raise InvalidRequest(
            f"client version {text} is too old. Minimum supported API version is {version_text(MIN_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise InvalidRequest(
            f"client version {text} is too new. Maximum supported API version is {version_text(MAX_VERSION)}"
        )
    return version, slash + rest


class Router:
    """Routes by method and first segment; within those, the first that matches."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._table: dict[tuple[str, str], list[tuple[tuple[str, ...], Route]]] = {}
        for route in routes:
            segments = tuple(route.pattern.strip("/").split("/"))
            self._table.setdefault((route.method, segments[0]), []).append((segments, route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """`path` is without the version and still percent-encoded."""
        parts = path.strip("/").split("/")
        # A HEAD without a row of its own is a GET without its body.
        for candidate in (method, "GET") if method == "HEAD" else (method,):
            for segments, route in self._table.get((candidate, parts[0]), ()):
                variables = _match(segments, parts)
                if variables is not None:
                    return route, variables
        return None


def _match(segments: tuple[str, ...], parts: Sequence[str]) -> dict[str, str] | None:
    variables: dict[str, str] = {}
    index = 0
    for position, segment in enumerate(segments):
        if segment.endswith("*}"):
            stop = len(parts) - (len(segments) - position - 1)
            if stop <= index:
                return None
            variables[segment[1:-2]] = "/".join(unquote(part) for part in parts[index:stop])
            index = stop
        elif index >= len(parts):
            return None
        elif segment.startswith("{"):
            if not parts[index]:
                return None
            variables[segment[1:-1]] = unquote(parts[index])
            index += 1
        elif segment == parts[index]:
            index += 1
        else:
            return None
    return variables if index == len(parts) else None
