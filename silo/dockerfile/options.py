"""The arguments of instructions as typed values: COPY and ADD, HEALTHCHECK, EXPOSE, ENV and LABEL, ARG, and those of one word.

Every function takes an instruction of the named kind and an `expand` that fills in variables (`expansion.expand` with the stage's
variables), and raises InvalidRequest that begins with the instruction's place.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import msgspec

from silo.dockerfile.expansion import Expander
from silo.dockerfile.flags import parse_flags
from silo.dockerfile.mistakes import mistake, shown
from silo.dockerfile.modes import ModeChange, parse_mode
from silo.dockerfile.quantities import parse_duration_s, parse_ports
from silo.dockerfile.syntax import Heredoc, Instruction
from silo.dockerfile.words import parse_heredoc_word
from silo.model.image import Healthcheck

MAXIMUM_PORTS = 65536 * 3
"""As many as there are, counted with repetitions."""
MAXIMUM_EXPANDED = 4 << 20
"""Characters that all words of one instruction may become: a long value can be named many times."""
_MINIMUM_INTERVAL_S = 0.001
_RETRIES = re.compile(r"[0-9]{1,9}")
_REAL_TIME_SIGNAL = re.compile(r"RTM(?:IN(?:\+([0-9]{1,2}))?|AX(?:-([0-9]{1,2}))?)")
_FIRST_REAL_TIME, _LAST_REAL_TIME = 34, 64
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


class _Bounded:
    """Passes on what has been expanded, while it is not too much."""

    def __init__(self, instruction: Instruction) -> None:
        self._instruction = instruction
        self._left = MAXIMUM_EXPANDED

    def count(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise mistake(self._instruction.where, f"its variables make more than {MAXIMUM_EXPANDED} characters")
        return text


class FileCopy(msgspec.Struct, frozen=True, kw_only=True):
    """One COPY or ADD, expanded. Paths are as written: Windows ones keep their backslashes."""

    sources: tuple[str, ...]
    """Paths or patterns within the context or stage; for ADD also URLs."""
    contents: tuple[Heredoc, ...] = ()
    """Files that stand in the Dockerfile itself, by name."""
    destination: str
    owner: str = ""
    """`user`, `user:group`, names or numbers; empty is the default."""
    mode: ModeChange | None = None
    source_stage: str = ""
    """`--from`: a stage's name or index, or an image; empty is the context."""
    is_linked: bool = False
    """`--link`: does not depend on what the image below holds at the destination."""
    keeps_parents: bool = False
    """`--parents`: the directories of a source's path are made at the destination."""
    excludes: tuple[str, ...] = ()
    """Patterns as in .dockerignore."""
    checksum: str = ""
    """ADD only: what a downloaded file has to have, such as `sha256:…`."""
    keeps_git_directory: bool | None = None
    unpacks: bool | None = None
    """ADD only: None is ADD's own rule, local archives are unpacked and downloaded ones are not."""


def parse_file_copy(instruction: Instruction, expand: Expander, expand_content: Callable[[Heredoc], str]) -> FileCopy:
    """COPY or ADD. `expand_content` is for the text of heredocs (`expansion.expand_heredoc`)."""
    flags = parse_flags(instruction.name, instruction.flags, where=instruction.where)
    stage = flags.text("from")
    if "$" in stage:
        hint = "name a stage with FROM ${…} AS name and copy from that"
        raise mistake(instruction.where, "'from' doesn't support variable expansion", hint=hint)
    *written, destination = instruction.words
    sources, contents = _sources(instruction, written)
    bounded = _Bounded(instruction)
    filled = ((content, bounded.count(expand_content(content))) for content in contents)
    copied = FileCopy(
        sources=tuple(bounded.count(expand(source)) for source in sources),
        contents=tuple(msgspec.structs.replace(content, text=text) for content, text in filled),
        destination=expand(destination),
        owner=expand(flags.text("chown")),
        mode=_mode(instruction, expand(flags.text("chmod"))),
        source_stage=stage,
        is_linked=bool(flags.switch("link")),
        keeps_parents=bool(flags.switch("parents")),
        excludes=flags.list("exclude"),
        checksum=expand(flags.text("checksum")),
        keeps_git_directory=flags.switch("keep-git-dir"),
        unpacks=flags.switch("unpack"),
    )
    _check_copy(instruction, copied)
    return copied


def _sources(instruction: Instruction, words: list[str]) -> tuple[list[str], list[Heredoc]]:
    heredocs = {heredoc.name: heredoc for heredoc in instruction.heredocs}
    sources: list[str] = []
    contents: list[Heredoc] = []
    for word in words:
        start = None if instruction.is_json else parse_heredoc_word(word)
        if start and start.name in heredocs:
            contents.append(heredocs[start.name])
        else:
            sources.append(word)
    return sources, contents


def _check_copy(instruction: Instruction, copied: FileCopy) -> None:
    where = instruction.where
    count = len(copied.sources) + len(copied.contents)
    last = copied.destination.replace("\\", "/").rpartition("/")[2]
    if count > 1 and last not in ("", ".", ".."):
        what = f"when using {instruction.name} with more than one source file, the destination must be a directory"
        raise mistake(where, what, hint=f"end {shown(copied.destination)[1:-1]} with a slash")
    if not copied.destination:
        raise mistake(where, "the destination is empty", hint="a variable in it may not be set")
    if any(not source for source in copied.sources):
        raise mistake(where, "a source is empty", hint="a variable in it may not be set")
    if any(not _is_file_name(content.name) for content in copied.contents):
        raise mistake(where, "a heredoc's name is a file's name and holds no slash")
    if copied.checksum and not _CHECKSUM.fullmatch(copied.checksum):
        raise mistake(where, f"invalid checksum {shown(copied.checksum)}", hint="such as sha256: and 64 digits")
    if copied.checksum and count != 1:
        raise mistake(where, "checksum can't be specified for multiple sources")


def _is_file_name(name: str) -> bool:
    return name not in (".", "..") and not set(name) & set("/\\")


def _mode(instruction: Instruction, text: str) -> ModeChange | None:
    if not text:
        return None
    try:
        return parse_mode(text)
    except ValueError as error:
        raise mistake(instruction.where, f"invalid chmod parameter {shown(text)}", hint=str(error)) from None


def parse_healthcheck(instruction: Instruction) -> Healthcheck:
    """HEALTHCHECK, whose words are not expanded. What is not given, or 0, has Docker's default."""
    flags = parse_flags("HEALTHCHECK", instruction.flags, where=instruction.where)
    kind, *command = instruction.words
    if kind == "NONE":
        if instruction.flags:
            raise mistake(instruction.where, "HEALTHCHECK NONE takes no flags")
        return Healthcheck(test=("NONE",))
    default = Healthcheck()

    def interval(name: str, fallback: float) -> float:
        try:
            seconds = parse_duration_s(flags.text(name) or "0")
        except ValueError as error:
            raise mistake(instruction.where, f"--{name}={flags.text(name)}", hint=str(error)) from None
        if 0 < seconds < _MINIMUM_INTERVAL_S:
            raise mistake(instruction.where, f"interval {name} cannot be less than 1ms")
        return seconds or fallback

    retries = flags.text("retries") or "0"
    if not _RETRIES.fullmatch(retries):
        raise mistake(instruction.where, f"--retries={shown(retries)[1:-1]} is no count", hint="such as --retries=3")
    return Healthcheck(
        test=("CMD" if instruction.is_json else "CMD-SHELL", *command),
        interval_s=interval("interval", default.interval_s),
        timeout_s=interval("timeout", default.timeout_s),
        start_period_s=interval("start-period", default.start_period_s),
        start_interval_s=interval("start-interval", default.start_interval_s),
        retries=int(retries) or default.retries,
    )


def parse_exposed_ports(instruction: Instruction, expand_words: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """EXPOSE: `80/tcp` …, each once, in order. A variable's value may hold several ports."""
    found: dict[str, None] = {}
    count = 0
    for word in (part for written in instruction.words for part in expand_words(written)):
        try:
            ports = parse_ports(word)
        except ValueError as error:
            raise mistake(instruction.where, f"invalid port {shown(word)}", hint=str(error)) from None
        count += len(ports)
        if count > MAXIMUM_PORTS:
            raise mistake(instruction.where, f"more than {MAXIMUM_PORTS} ports")
        found |= dict.fromkeys(ports)
    return tuple(found)


def parse_pairs(instruction: Instruction, expand: Expander) -> tuple[tuple[str, str], ...]:
    """ENV or LABEL: names and values. All values see the variables from before the instruction."""
    bounded = _Bounded(instruction)
    pairs = []
    for word in instruction.words:
        name, _, value = word.partition("=")
        pairs.append((bounded.count(expand(name)), bounded.count(expand(value))))
        if not pairs[-1][0]:
            raise mistake(instruction.where, f"{instruction.name} names can not be blank")
    return tuple(pairs)


def parse_arguments(instruction: Instruction) -> tuple[tuple[str, str | None], ...]:
    """ARG: names and defaults, None where there is none. Not expanded: a default sees the arguments before it."""
    return tuple(
        (word.partition("=")[0], word.partition("=")[2] if "=" in word else None) for word in instruction.words
    )


def parse_stop_signal(instruction: Instruction, expand: Expander) -> str:
    """STOPSIGNAL as written, after a look whether there is such a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`."""
    text = expand(instruction.words[0])
    name = text.upper().removeprefix("SIG")
    is_number = text.isascii() and text.isdigit() and 0 < int(text[:4]) <= _LAST_REAL_TIME and len(text) < 4
    if not (is_number or f"SIG{name}" in signal.Signals.__members__ or _is_real_time(name)):
        raise mistake(instruction.where, f"unknown signal {shown(text)}", hint="such as SIGTERM, or a number up to 64")
    return text


def _is_real_time(name: str) -> bool:
    match = _REAL_TIME_SIGNAL.fullmatch(name)
    return match is not None and int(match[1] or match[2] or 0) <= _LAST_REAL_TIME - _FIRST_REAL_TIME


def parse_user(instruction: Instruction, expand: Expander) -> str:
    """USER: `name`, `uid:gid`, or a Windows account such as `ContainerAdministrator`; empty is the image's first user."""
    user = expand(instruction.words[0])
    if not user.isprintable():
        raise mistake(instruction.where, f"USER {shown(user)} is no account's name")
    return user


def parse_volumes(instruction: Instruction, expand: Expander) -> tuple[str, ...]:
    """VOLUME: paths as written, each once, in order."""
    bounded = _Bounded(instruction)
    volumes = tuple(dict.fromkeys(bounded.count(expand(word)).strip() for word in instruction.words))
    if "" in volumes:
        raise mistake(
            instruction.where, "VOLUME specified can not be an empty string", hint="a variable may not be set"
        )
    return volumes


def parse_path(instruction: Instruction, expand: Expander) -> str:
    """WORKDIR: the path as written, not empty."""
    path = expand(instruction.words[0])
    if not path:
        raise mistake(instruction.where, "WORKDIR is empty", hint="a variable in it may not be set")
    return path
