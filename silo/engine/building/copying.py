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
from silo.dockerfile.options import FileCopy, parse_file_copy
from silo.dockerfile.syntax import Heredoc, Instruction
from silo.engine.building.ports import BuildFiles, Change, Excludes, SourceTree
from silo.engine.ports import Personality
from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.model.build import CopyTarget, SourceItem, SourceKind

_URL = re.compile(r"^https?://", re.IGNORECASE)
_GIT = re.compile(r"^(git@|git://|ssh://)|^https?://[^?]*\.git(#.*)?$", re.IGNORECASE)
_ROOT = (0, 0)
_HERE = (".", "..")

Fill = Callable[[str], str]
FindTree = Callable[[str], Awaitable[tuple[SourceTree, Personality | None]]]
"""`--from`'s word, or "" for the context → its tree, and who maps its paths (None: they are relative POSIX paths)."""


class Source(msgspec.Struct, frozen=True):
    """`below`: directories of the source's own path that are kept at the destination (--parents)."""

    tree: SourceTree
    item: SourceItem
    below: str = ""


class CopyStep(msgspec.Struct, frozen=True, kw_only=True):
    """A COPY or ADD with everything looked up. `text` is what history says and the cache compares."""

    text: str
    sources: tuple[Source, ...]
    copy: FileCopy
    is_directory: bool
    """The destination is a directory because of how it is written."""
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

        def content(heredoc: Heredoc) -> str:
            return expand_heredoc(heredoc, self._variables, ignore_case=windows, where=instruction.where)

        copy = parse_file_copy(instruction, self._fill, content)
        _check_supported(instruction, copy, windows=windows)
        excluded = IgnoreRules(copy.excludes, where="--exclude").excludes if copy.excludes else None
        sources: list[Source] = []
        for word in copy.sources:
            sources += await self._find(instruction, copy, word, excluded, windows)
        if copy.contents:
            files = {heredoc.name: heredoc.text.encode() for heredoc in copy.contents}
            tree = await self._stack.enter_async_context(self._files.write(files))
            for name in files:
                sources += [Source(tree, item) for item in await tree.find(name, archives=False)]
        if not sources:
            raise InvalidRequest(f"{instruction.name} failed: no source files were specified")
        last = re.split(r"[/\\]" if windows else "/", copy.destination)[-1]
        is_directory = last == "" or last in _HERE
        if len(sources) > 1 and not is_directory:
            raise InvalidRequest(
                f"When using {instruction.name} with more than one source file, the destination must be a directory "
                "and end with a /"
            )
        return CopyStep(
            text=_text(instruction, sources, copy, self._fill(_flags_of(instruction).text("chmod"))),
            sources=tuple(sources),
            copy=copy,
            is_directory=is_directory or copy.keeps_parents,
            excluded=excluded,
        )

    async def _find(
        self, instruction: Instruction, copy: FileCopy, word: str, excluded: Excludes | None, windows: bool
    ) -> list[Source]:
        adds = instruction.name == "ADD"
        if adds and (_GIT.match(word) or _URL.match(word)):
            return await self._fetch(copy, word)
        if copy.checksum:
            raise InvalidRequest("checksum can't be specified for non-HTTP(S) sources")
        tree, personality = await self._find_tree(copy.source_stage)
        pattern = source_path(word, personality, windows=windows)
        try:
            items = await tree.find(pattern, archives=adds and copy.unpacks is not False, excluded=excluded)
        except NotFound as error:
            place = f"in {copy.source_stage}" if copy.source_stage else "in build context or excluded by .dockerignore"
            raise NotFound(
                f"{instruction.name} failed: file not found {place}: stat {word}: file does not exist"
            ) from error
        if not copy.keeps_parents:
            return [Source(tree, item) for item in items]
        return [Source(tree, item, parents_of(item, pattern)) for item in items]

    async def _fetch(self, copy: FileCopy, url: str) -> list[Source]:
        if _GIT.match(url):
            raise Unsupported(
                f"ADD of a git repository ({url}) is not supported", hint="clone it beside the Dockerfile"
            )
        if copy.checksum and not copy.checksum.startswith("sha256:"):
            raise Unsupported(f"--checksum={copy.checksum} is not supported", hint="sha256: is")
        tree, name, _ = await self._stack.enter_async_context(self._files.fetch(url, checksum=copy.checksum))
        if not name and copy.destination.endswith("/"):
            raise InvalidRequest(f"cannot determine filename for {url}", hint="name the file in ADD's destination")
        return [Source(tree, item) for item in await tree.find("*", archives=copy.unpacks is True)]


async def apply_copy(change: Change, step: CopyStep, path: str) -> None:
    """`path` is the destination in the image's Linux root. Raises InvalidRequest, NoSpace."""
    copy = step.copy
    async with change.open():
        owner: tuple[int, int] | None = None if copy.source_stage else _ROOT
        if copy.owner:
            owner = await change.find_owner(copy.owner)
        into = step.is_directory or await change.is_directory(path)
        for source in step.sources:
            kept = None if source.item.kind is SourceKind.ARCHIVE and not copy.owner else owner
            target = CopyTarget(
                path=f"{path.rstrip('/')}/{source.below}" if source.below else path,
                into=into,
                owner=kept,
                mode=copy.mode.apply if copy.mode is not None else None,
            )
            await change.copy(source.tree, source.item, target, excluded=step.excluded)


def parents_of(item: SourceItem, pattern: str) -> str:
    """What `--parents` makes at the destination: the source's own directories, after `/./` if the pattern has it."""
    parts = item.found.split("/")
    before, pivot, _ = pattern.partition("/./")
    if pivot:
        parts = parts[len([part for part in before.split("/") if part not in ("", ".")]) :]
    return "/".join(parts if item.kind is SourceKind.DIRECTORY else parts[:-1])


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


def _check_supported(instruction: Instruction, copy: FileCopy, *, windows: bool) -> None:
    if copy.keeps_git_directory is not None:
        raise Unsupported(f"{instruction.name} --keep-git-dir is not supported", hint="it is for git repositories only")
    if windows and copy.owner:
        raise Unsupported(
            f"{instruction.name} --chown is not supported for Windows images",
            hint="who may read a file there is no matter of numbers",
        )


def _flags_of(instruction: Instruction) -> Flags:
    return parse_flags(instruction.name, instruction.flags, where=instruction.where)


def _text(instruction: Instruction, sources: list[Source], copy: FileCopy, chmod: str) -> str:
    digests = [f"{source.item.kind}:{source.item.digest}" for source in sources]
    places = [f"{digest} {source.below}" for digest, source in zip(digests, sources, strict=True)]
    whole = digests[0]
    if len(digests) > 1 or sources[0].below:
        whole = f"multi:{hashlib.sha256(chr(10).join(places).encode()).hexdigest()}"
    words = [instruction.name]
    words += [f"--chown={copy.owner}"] if copy.owner else []
    words += [f"--chmod={chmod}"] if chmod else []
    return " ".join((*words, whole, "in", copy.destination, ""))
