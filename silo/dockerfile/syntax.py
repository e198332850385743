"""What a Dockerfile says, before any variable is filled in: stages of instructions, each with its place in the file."""

from __future__ import annotations

import msgspec

BACKSLASH = "\\"
BACKTICK = "`"


class Heredoc(msgspec.Struct, frozen=True, kw_only=True):
    """One `<<NAME` and the lines that belong to it.

    `text` ends with a newline unless it is empty; leading tabs are gone already where `<<-` was written. `expand` is False where
    the word was quoted: then no variable is filled in.
    """

    name: str
    text: str
    expand: bool


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction as it was written. Nothing here is expanded.

    `words` follows the instruction's own rule:

    - exec form (`is_json`): the strings of the list, for RUN CMD ENTRYPOINT SHELL ADD COPY VOLUME;
    - RUN CMD ENTRYPOINT in shell form, MAINTAINER USER WORKDIR STOPSIGNAL: the text as one word;
    - FROM ADD COPY VOLUME EXPOSE: what white space parts;
    - ENV LABEL: `NAME=value`, quotes and escapes kept; the old form `ENV NAME some text` is one such word;
    - ARG: `NAME` or `NAME=default`, quotes and escapes kept;
    - HEALTHCHECK: `NONE`, or `CMD` followed by the strings (`is_json`) or by the command as one word;
    - ONBUILD: the trigger as one word, with the heredocs that belong to it (what an image's configuration holds, and what
      `parser.parse_trigger` reads).
    """

    name: str
    """Upper case, such as RUN."""
    flags: tuple[str, ...] = ()
    """Such as `--from=build`, in order, quotes removed. Their names are known ones: the parser has looked."""
    text: str
    """What follows name and flags: continued lines joined, comments dropped."""
    words: tuple[str, ...]
    is_json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    line: int
    """Where it begins, from 1."""
    last_line: int
    """Where it ends, with its heredocs."""
    original: str
    """The whole instruction with its lines joined, for progress: `RUN echo a`."""
    file: str = "Dockerfile"

    @property
    def where(self) -> str:
        """Such as `Dockerfile:12`, for errors."""
        return f"{self.file}:{self.line}"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One FROM and what follows until the next. `name` is lower case and empty where none was given."""

    name: str
    source: str
    """An image, an earlier stage's name, or `scratch`; not expanded."""
    platform: str
    """The value of `--platform`, not expanded; empty where none was given."""
    first: Instruction
    """The FROM itself."""
    instructions: tuple[Instruction, ...]
    index: int


class Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file. `arguments` are the ARGs before the first FROM: only FROM lines see them."""

    escape: str
    """Backslash or backtick."""
    syntax: str
    """The value of `# syntax=`; empty where none was given."""
    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()
    """Such as `Dockerfile:3: empty continuation line …`."""
