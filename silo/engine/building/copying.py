"""COPY and ADD: from words to sources with digests, and from there to a layer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import msgspec

from silo.dockerfile.expansion import expand_heredoc
from silo.dockerfile.flags import Flags, parse_flags
from silo.dockerfile.ignore import IgnoreRules
from silo.dockerfile.syntax import Instruction
from silo.dockerfile.words import parse_heredoc_word
from silo.engine.building.ports import BuildFiles, Change, Excludes, SourceTree
from silo.engine.ports import Personality
from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.model.build import CopyTarget, SourceItem, SourceKind

_URL = re.compile(r"^https?://", re.IGNORECASE)
_GIT = re.compile(r"^(git@|git://|ssh://)|^https?://[^?]*\.git(#.*)?$", re.IGNORECASE)
_OCTAL = re.compile(r"[0-7]{1,4}")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_ROOT = (0, 0)

Fill = Callable[[str], str]
FindTree = Callable[[str], Awaitable[tuple[SourceTree, Personality | None]]]
"""`--from`'s word, or "" for the context → its tree, and who maps its paths (None: they are relative POSIX paths)."""


class Source(msgspec.Struct, frozen=True):
    tree: SourceTree
    item: SourceItem


class CopyStep(msgspec.Struct, frozen=True, kw_only=True):
    """A COPY or ADD with everything looked up. `text` is what history says and the cache compares."""

    text: str
    sources: tuple[Source, ...]
    destination: str
    """As written, with its variables filled in."""
    is_directory: bool
    """The destination is a directory because of how it is written."""
    owner: str
    mode: int | None
    keeps_owners: bool
    excluded: Excludes | None = None


class CopyPlanner:
    """Looks up what one COPY or ADD takes; trees stay open as long as the stack."""

    def __init__(
        self, files: BuildFiles, stack: AsyncExitStack, find_tree: FindTree, fill: Fill, variables: Mapping[str, str]
    ) -> None:
        self._files = files
        self._stack = stack
        self._find_tree = find_tree
        self._fill = fill
        self._variables = variables

    async def plan(self, instruction: Instruction, *, windows: bool) -> CopyStep:
        """Raises InvalidRequest, NotFound, Unsupported."""
        flags = parse_flags(instruction.name, instruction.flags, where=instruction.where)
        _check_flags(instruction, flags, windows=windows)
        *words, last = instruction.words
        destination = self._fill(last)
        patterns = flags.list("exclude")
        excluded = IgnoreRules(patterns, where="--exclude").excludes if patterns else None
        sources: list[Source] = []
        heredocs = iter(instruction.heredocs)
        for word in words:
            if instruction.heredocs and parse_heredoc_word(word) is not None:
                heredoc = next(heredocs)
                text = expand_heredoc(heredoc, self._variables, ignore_case=windows, where=instruction.where)
                tree = await self._stack.enter_async_context(self._files.write({heredoc.name: text.encode()}))
                sources += [Source(tree, item) for item in await tree.find(heredoc.name, archives=False)]
            else:
                sources += await self._find(instruction, flags, self._fill(word), destination, excluded, windows)
        if not sources:
            raise InvalidRequest(f"{instruction.name} failed: no source files were specified")
        separators = "/\\" if windows else "/"
        is_directory = destination[-1:] in tuple(separators) or re.split("[/\\\\]", destination)[-1] in (".", "..")
        if len(sources) > 1 and not is_directory:
            raise InvalidRequest(
                f"When using {instruction.name} with more than one source file, the destination must be a directory "
                "and end with a /"
            )
        chmod = self._fill(flags.text("chmod"))
        if chmod and not _OCTAL.fullmatch(chmod):
            raise InvalidRequest(f"--chmod={chmod} is not an octal mode", hint="such as --chmod=755")
        owner = self._fill(flags.text("chown"))
        return CopyStep(
            text=_text(instruction, sources, destination, owner=owner, chmod=chmod),
            sources=tuple(sources),
            destination=destination,
            is_directory=is_directory,
            owner=owner,
            mode=int(chmod, 8) if chmod else None,
            keeps_owners=bool(flags.text("from")),
            excluded=excluded,
        )

    async def _find(
        self,
        instruction: Instruction,
        flags: Flags,
        word: str,
        destination: str,
        excluded: Excludes | None,
        windows: bool,
    ) -> list[Source]:
        adds = instruction.name == "ADD"
        if adds and (_GIT.match(word) or _URL.match(word)):
            return await self._fetch(flags, word, destination)
        if flags.text("checksum"):
            raise InvalidRequest("checksum can't be specified for non-HTTP(S) sources")
        unpack = flags.switch("unpack")
        tree, personality = await self._find_tree(flags.text("from"))
        pattern = source_path(word, personality, windows=windows)
        try:
            items = await tree.find(pattern, archives=adds and unpack is not False, excluded=excluded)
        except NotFound as error:
            place = (
                f"in {flags.text('from')}" if flags.text("from") else "in build context or excluded by .dockerignore"
            )
            raise NotFound(
                f"{instruction.name} failed: file not found {place}: stat {word}: file does not exist"
            ) from error
        return [Source(tree, item) for item in items]

    async def _fetch(self, flags: Flags, url: str, destination: str) -> list[Source]:
        if _GIT.match(url):
            raise Unsupported(
                f"ADD of a git repository ({url}) is not supported", hint="clone it beside the Dockerfile"
            )
        checksum = flags.text("checksum")
        if checksum and not _CHECKSUM.fullmatch(checksum):
            raise InvalidRequest(f"--checksum={checksum} is not supported", hint="sha256: and 64 hexadecimal digits")
        tree, name, _ = await self._stack.enter_async_context(self._files.fetch(url, checksum=checksum))
        if not name and destination.endswith("/"):
            raise InvalidRequest(f"cannot determine filename for {url}", hint="name the file in ADD's destination")
        items = await tree.find("*", archives=flags.switch("unpack") is True)
        return [Source(tree, item) for item in items]


async def apply_copy(change: Change, step: CopyStep, path: str) -> None:
    """`path` is the destination in the image's Linux root. Raises InvalidRequest, NoSpace."""
    async with change.open():
        owner: tuple[int, int] | None = None if step.keeps_owners else _ROOT
        if step.owner:
            owner = await change.find_owner(step.owner)
        into = step.is_directory or await change.is_directory(path)
        for source in step.sources:
            kept = None if source.item.kind is SourceKind.ARCHIVE and not step.owner else owner
            target = CopyTarget(path=path, into=into, owner=kept, mode=step.mode)
            await change.copy(source.tree, source.item, target, excluded=step.excluded)


def source_path(word: str, personality: Personality | None, *, windows: bool) -> str:
    """A source word as a path relative to its tree. Raises InvalidRequest."""
    if personality is None:
        return re.sub("^[A-Za-z]:", "", word).replace("\\", "/") if windows else word
    if personality.name != "windows":
        return word
    # Wildcards are no names that a path may hold: only what stands before them is mapped.
    parts = word.replace("\\", "/").split("/")
    count = next((index for index, part in enumerate(parts) if any(mark in part for mark in "*?[")), len(parts))
    return "/".join((personality.map_path("/".join(parts[:count]) or "/"), *parts[count:]))


def _check_flags(instruction: Instruction, flags: Flags, *, windows: bool) -> None:
    for name in ("parents", "keep-git-dir"):
        if flags.switch(name):
            raise Unsupported(f"{instruction.name} --{name} is not supported")
    if windows and flags.text("chown"):
        raise Unsupported(
            f"{instruction.name} --chown is not supported for Windows images",
            hint="who may read a file there is no matter of numbers",
        )


def _text(instruction: Instruction, sources: list[Source], destination: str, *, owner: str, chmod: str) -> str:
    digests = [f"{source.item.kind}:{source.item.digest}" for source in sources]
    whole = digests[0]
    if len(digests) > 1:
        whole = f"multi:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"
    words = [instruction.name]
    words += [f"--chown={owner}"] if owner else []
    words += [f"--chmod={chmod}"] if chmod else []
    return " ".join((*words, whole, "in", destination, ""))
