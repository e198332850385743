""".dockerignore: which files of a build's context are left out. The last rule that matches decides; `!` brings files back.

Source: https://docs.docker.com/build/concepts/context/#dockerignore-files. A rule that matches a directory holds for everything
beneath it. `COPY --exclude` has the same patterns.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from silo.dockerfile.globs import PatternSet
from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.text import decode_text


class IgnoreRules:
    """Rules in order. Paths are relative POSIX ones without `.` and `..`, such as `src/main.c`."""

    def __init__(self, patterns: Iterable[str], *, where: str = "pattern") -> None:
        """Patterns as in a .dockerignore's lines, without comments. Raises InvalidRequest for a malformed one."""
        self._read((f"{where} {number}", pattern) for number, pattern in enumerate(patterns, 1))

    def _read(self, placed: Iterable[tuple[str, str]]) -> None:
        cleaned: list[str] = []
        self._is_exception: list[bool] = []
        for place, pattern in placed:
            if (parsed := _parse_pattern(pattern, place)) is not None:
                is_exception, text = parsed
                cleaned.append(text)
                self._is_exception.append(is_exception)
        try:
            self._patterns = PatternSet(cleaned)
        except ValueError as error:
            raise mistake("patterns that leave files out", str(error)) from None

    @classmethod
    def parse(cls, untrusted: bytes, *, name: str = ".dockerignore") -> IgnoreRules:
        """A whole file. Raises InvalidRequest with the line."""
        rules = cls(())
        lines = decode_text(untrusted, name=name).split("\n")
        rules._read((f"{name}:{number}", line) for number, line in enumerate(lines, 1) if not line.startswith("#"))
        return rules

    def excludes(self, path: str) -> bool:
        """Whether the file or directory is left out. The context itself (`.` or nothing) never is."""
        last = self._last(path)
        return last is not None and not self._is_exception[last]

    def excludes_all_beneath(self, directory: str) -> bool:
        """Whether the directory is left out with everything in it, so that nobody needs to look inside."""
        last = self._last(directory)
        if last is None or self._is_exception[last]:
            return False
        beneath = self._patterns.may_match_beneath(directory)
        return not any(self._is_exception[number] for number in beneath if number > last)

    def _last(self, path: str) -> int | None:
        if path in ("", "."):
            return None
        return max(self._patterns.match_with_parents(path), default=None)


def parse_ignore(untrusted: bytes, *, name: str = ".dockerignore") -> IgnoreRules:
    """A .dockerignore file; comments are lines whose first character is `#`. Raises InvalidRequest with the line."""
    return IgnoreRules.parse(untrusted, name=name)


def _parse_pattern(untrusted: str, place: str) -> tuple[bool, str] | None:
    """Whether the rule brings files back, and its cleaned pattern; None for an empty line."""
    text = untrusted.strip()
    is_exception = text.startswith("!")
    text = text.removeprefix("!").strip()
    if not text:
        if is_exception:
            raise mistake(place, 'illegal exclusion pattern: "!"', hint="a pattern follows the !")
        return None
    text = clean_pattern(text)
    try:
        PatternSet([text])
    except ValueError as error:
        raise mistake(place, f"malformed pattern {shown(untrusted.strip())}: {error}") from None
    return is_exception, text


def clean_pattern(pattern: str) -> str:
    """The shortest spelling: no `.`, no `a/..`, no doubled, leading or trailing slashes."""
    cleaned = posixpath.normpath(pattern)
    return cleaned.lstrip("/") or "/"
