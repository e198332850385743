"""A Dockerfile's bytes → its logical lines: parser directives, continuation lines, comments, and the lines of heredocs.

Docker's rules: directives stand at the very top, one line each; a line that ends with the escape character goes on in the next
one; comments and blank lines in between are dropped; the lines after `<<NAME` up to NAME belong to that instruction.
"""

from __future__ import annotations

import re

import msgspec

from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.syntax import BACKSLASH, BACKTICK

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)")
_DIRECTIVES = ("syntax", "escape", "check")


class LogicalLine(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction's text with its continuation lines joined; lines count from 1."""

    text: str
    first: int
    last: int
    has_blank: bool
    """An empty line stood between continued ones: Docker warns of it."""


class SourceReader:
    """Reads logical lines one after another; what directives say is known after construction."""

    def __init__(self, text: str, *, name: str, escape: str = BACKSLASH, has_directives: bool = True) -> None:
        self._name = name
        lines = text.split("\n")
        # Only "\n" ends a line; what a heredoc holds keeps its line ends as they are.
        self._lines = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        self._next = 0
        self.directives: dict[str, str] = {}
        if has_directives:
            self._read_directives()
        self.escape = self.directives.get("escape", escape)
        mark = re.escape(self.escape)
        # An escape that is itself escaped does not continue the line.
        self._continued = re.compile(rf"(?<!{mark}){mark}[ \t]*\Z")

    def _read_directives(self) -> None:
        while self._next < len(self._lines):
            match = _DIRECTIVE.fullmatch(self._lines[self._next].strip())
            key = match[1].lower() if match else ""
            if not match or key not in _DIRECTIVES:
                return
            self._next += 1
            where = f"{self._name}:{self._next}"
            if key in self.directives:
                raise mistake(where, f"only one {key} parser directive can be used", hint="remove one of the two")
            if key == "escape" and match[2] not in (BACKSLASH, BACKTICK):
                raise mistake(where, f"invalid escape token {shown(match[2])}", hint=f"use {BACKTICK} or {BACKSLASH}")
            self.directives[key] = match[2]

    def read_line(self) -> LogicalLine | None:
        """The next instruction's text; None at the end of the file."""
        while self._next < len(self._lines):
            line = self._lines[self._next].lstrip()
            if not line or line.startswith("#"):
                self._next += 1
            else:
                text, more = self._take(line)
                return self._read_continued(text, more, self._next)
        return None

    def _read_continued(self, text: str, more: bool, first: int) -> LogicalLine:
        parts = [text]
        has_blank = False
        while more and self._next < len(self._lines):
            line = self._lines[self._next]
            if line.lstrip().startswith("#"):
                self._next += 1
            elif not line.strip():
                self._next += 1
                has_blank = True
            else:
                text, more = self._take(line)
                parts.append(text)
        return LogicalLine(text="".join(parts), first=first, last=self._next, has_blank=has_blank)

    def _take(self, line: str) -> tuple[str, bool]:
        """The line without its end, and whether the next one continues it."""
        self._next += 1
        line = line.rstrip("\r\n")
        match = self._continued.search(line)
        return (line[: match.start()], True) if match else (line, False)

    def read_heredoc(self, terminator: str, *, strip_tabs: bool, where: str) -> str:
        """The lines up to the one that is `terminator`. Raises InvalidRequest when there is none."""
        body: list[str] = []
        while self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            if strip_tabs:
                line = line.lstrip("\t")
            if line.rstrip("\r\n") == terminator:
                return "".join(body)
            body.append(line)
        raise mistake(where, "unterminated heredoc", hint=f"a line with {shown(terminator)} alone ends it")

    @property
    def line(self) -> int:
        """The line read last, from 1."""
        return self._next
