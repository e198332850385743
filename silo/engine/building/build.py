"""One build from its first byte to its last tag."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import msgspec

from silo.dockerfile.expansion import expand
from silo.dockerfile.ignore import parse_ignore
from silo.dockerfile.parser import parse_dockerfile
from silo.dockerfile.syntax import Dockerfile, Instruction, Stage
from silo.engine.building.cache import Cache
from silo.engine.building.failure import place
from silo.engine.building.images import SCRATCH, ImageFinder
from silo.engine.building.mounts import CacheLocks
from silo.engine.building.ports import BuildFiles, BuildOutput, SourceTree, StepStore
from silo.engine.building.request import BuildRequest
from silo.engine.building.running import Runner
from silo.engine.building.stage import StageBuilder, StageParts, short
from silo.engine.building.stages import choose_stages, count_steps, find_stage, find_target
from silo.engine.building.variables import Arguments, Scope, platform_arguments, target_arguments
from silo.engine.ports import Personality
from silo.errors import ImageNotFound, InvalidRequest, NotFound, SiloError, Unsupported
from silo.model.build import SourceKind
from silo.model.image import Image
from silo.model.platform import PersonalityName

MAXIMUM_DOCKERFILE_BYTES = 1 << 20
_IGNORE_FILE = ".dockerignore"
_GIT = re.compile(r"^(git://|git@|ssh://|github\.com/)|\.git(#.*)?$")
# How clients call a Dockerfile that they have put into a context to which it does not belong.
_FROM_ELSEWHERE = re.compile(r"\.dockerfile\.[0-9a-f]{20}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """What is known once the context has come and the Dockerfile is read; `stack` holds what lasts as long as the build."""

    context: SourceTree
    dockerfile: Dockerfile
    arguments: Arguments
    cache: Cache
    stack: AsyncExitStack


class Build:
    """Used once. `made` are the images of its steps so far: nobody else may remove them."""

    def __init__(
        self,
        *,
        store: StepStore,
        files: BuildFiles,
        personalities: Mapping[PersonalityName, Personality],
        runner: Runner,
        finder: ImageFinder,
        request: BuildRequest,
        output: BuildOutput,
        locks: CacheLocks,
    ) -> None:
        self._store = store
        self._files = files
        self._personalities = personalities
        self._runner = runner
        self._finder = finder
        self._request = request
        self._output = output
        self._locks = locks
        self._stages: dict[int, StageBuilder] = {}
        self._trees: dict[str, SourceTree] = {}
        self._step = 0
        self._steps = 0

    @property
    def images(self) -> tuple[str, ...]:
        """Ids of the newest image of each stage."""
        return tuple(stage.image.id for stage in self._stages.values())

    async def run(self, chunks: AsyncIterator[bytes]) -> Image:
        """Raises SiloError; what was built by then stays as untagged images, for the cache."""
        async with AsyncExitStack() as stack:
            image = await self._run(chunks, stack)
            for tag in self._request.tags:
                self._store.tag(image.id, tag)
        return image

    async def _run(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> Image:
        context = await self._receive(chunks, stack)
        dockerfile = await self._read_dockerfile(context)
        arguments = self._arguments(dockerfile)
        target = find_target(dockerfile, self._request.target)
        for instruction in dockerfile.arguments:
            arguments.declare_global(instruction)
        stages = choose_stages(dockerfile, target, lambda stage: self._source_of(stage, arguments))
        labels = _labels_instruction(self._request.labels, dockerfile)
        self._steps = count_steps(dockerfile, stages, labels=labels is not None)
        for warning in dockerfile.warnings:
            await self._output.say(f"[Warning] {warning}\n")
        for instruction in dockerfile.arguments:
            await self._announce(instruction)
        sources = [image for name in self._request.cache_from if (image := self._store.find(name)) is not None]
        cache = Cache(self._store, enabled=not self._request.no_cache, sources=sources)
        read = _Read(context=context, dockerfile=dockerfile, arguments=arguments, cache=cache, stack=stack)
        for stage in stages:
            await self._run_stage(stage, read)
        builder = self._stages[target.index]
        if labels is not None:
            await self._announce(labels)
            await builder.run(labels)
        if unused := arguments.unused():
            await self._output.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if not builder.image.history and not builder.image.layers:
            raise InvalidRequest("No image was generated: the stage has no instruction after FROM scratch")
        return builder.image

    # Context and Dockerfile

    async def _receive(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> SourceTree:
        remote = self._request.remote
        if not remote:
            return await stack.enter_async_context(self._files.receive(chunks))
        if _GIT.search(remote.partition("?")[0]) or not remote.startswith(("http://", "https://")):
            raise Unsupported(
                f"the context {remote} is not supported",
                hint="a git repository has to be cloned first; URLs of files work",
            )
        await self._output.say(f"Downloading build context from remote url: {remote}\n")
        tree, _, content_type = await stack.enter_async_context(self._files.fetch(remote))
        item = (await tree.find("*", archives=True))[0]
        if item.kind is SourceKind.ARCHIVE and not content_type.startswith("text/"):
            return await stack.enter_async_context(self._files.unpack(tree, item))
        content = await tree.read(item.path, limit_bytes=MAXIMUM_DOCKERFILE_BYTES)
        return await stack.enter_async_context(self._files.write({self._request.dockerfile: content}))

    async def _read_dockerfile(self, context: SourceTree) -> Dockerfile:
        name = self._request.dockerfile
        try:
            content = await context.read(name, limit_bytes=MAXIMUM_DOCKERFILE_BYTES)
        except NotFound:
            if name != "Dockerfile":
                raise InvalidRequest(f"Cannot locate specified Dockerfile: {name}") from None
            try:
                content = await context.read("dockerfile", limit_bytes=MAXIMUM_DOCKERFILE_BYTES)
            except NotFound:
                raise InvalidRequest("Cannot locate specified Dockerfile: Dockerfile") from None
        await self._drop_ignored(context, name)
        return parse_dockerfile(
            content, name="Dockerfile" if _FROM_ELSEWHERE.fullmatch(name) else name.rpartition("/")[2]
        )

    async def _drop_ignored(self, context: SourceTree, name: str) -> None:
        """Clients leave out what .dockerignore names, but for itself and the Dockerfile, which the daemon has to read."""
        if _FROM_ELSEWHERE.fullmatch(name):
            await context.remove([name])
        try:
            rules = parse_ignore(await context.read(_IGNORE_FILE, limit_bytes=MAXIMUM_DOCKERFILE_BYTES))
        except NotFound:
            return
        await context.remove([path for path in (_IGNORE_FILE, name) if rules.excludes(path)])

    def _arguments(self, dockerfile: Dockerfile) -> Arguments:
        machine = os.uname().machine
        own = f"linux/{_ARCHITECTURES.get(machine, machine)}"
        platforms = platform_arguments(own, self._request.platform or own)
        return Arguments(self._request.build_args, platforms, escape=dockerfile.escape)

    # Stages

    def _source_of(self, stage: Stage, arguments: Arguments) -> str:
        word = expand(stage.source, arguments.for_from(), escape=arguments.escape, where=stage.first.where)
        if not word:
            raise InvalidRequest(
                f"{stage.first.where}: base name ({stage.source}) should not be blank",
                hint="an ARG before FROM needs a default",
            )
        return word

    async def _run_stage(self, stage: Stage, read: _Read) -> None:
        await self._announce(stage.first)
        try:
            builder = await self._begin(stage, read)
        except SiloError as error:
            raise place(error, stage.first) from error
        self._stages[stage.index] = builder
        await builder.run_triggers(stage.first)
        for instruction in stage.instructions:
            await self._announce(instruction)
            await builder.run(instruction)

    async def _begin(self, stage: Stage, read: _Read) -> StageBuilder:
        arguments = read.arguments
        source = self._source_of(stage, arguments)
        platform = expand(stage.platform, arguments.for_from(), escape=arguments.escape, where=stage.first.where)
        earlier = find_stage(read.dockerfile.stages[: stage.index], source)
        inherited = None
        if earlier is not None:
            image = self._stages[earlier.index].image
            inherited = self._stages[earlier.index].scope.declared
        elif source == SCRATCH:
            wanted = platform or self._request.platform
            if wanted.lower().startswith("windows"):
                raise InvalidRequest(
                    "Windows images are not made FROM scratch: nothing would start without a base", hint="FROM windows"
                )
            image = await self._store.empty(wanted)
        else:
            image = await self._finder.find(source, platform or self._request.platform)
        await self._output.say(f" ---> {'' if source == SCRATCH else short(image.id)}\n")
        personality = self._personality_of(image)
        windows = personality.name is PersonalityName.WINDOWS
        if not self._request.platform:
            # what nobody chose is what the stage is for
            arguments.platforms |= target_arguments(str(msgspec.structs.replace(image.platform, os_version="")))

        async def find_tree(word: str) -> tuple[SourceTree, Personality | None]:
            return (read.context, None) if not word else await self._tree_of(word, stage, read)

        parts = StageParts(
            store=self._store,
            files=self._files,
            runner=self._runner,
            cache=read.cache,
            output=self._output,
            request=self._request,
            locks=self._locks,
            find_tree=find_tree,
            escape=read.dockerfile.escape,
        )
        return StageBuilder(parts, image, Scope(arguments, windows=windows, inherited=inherited), personality)

    async def _tree_of(self, word: str, stage: Stage, read: _Read) -> tuple[SourceTree, Personality]:
        """The files of `--from`'s stage or image; looked at once, however many steps take from it."""
        earlier = find_stage(read.dockerfile.stages[: stage.index], word, by_index=True)
        if earlier is not None:
            image = self._stages[earlier.index].image
        else:
            try:
                image = await self._finder.find(word, self._request.platform)
            except ImageNotFound as error:
                raise NotFound(f"--from={word} is neither an earlier stage nor an image", details=str(error)) from error
        if image.id not in self._trees:
            self._trees[image.id] = await read.stack.enter_async_context(self._files.look(image))
        return self._trees[image.id], self._personality_of(image)

    def _personality_of(self, image: Image) -> Personality:
        try:
            return self._personalities[PersonalityName(image.platform.os)]
        except (ValueError, KeyError):
            raise Unsupported(f"images for {image.platform.os} cannot be built here") from None

    async def _announce(self, instruction: Instruction) -> None:
        self._step += 1
        await self._output.say(f"Step {self._step}/{self._steps} : {instruction.original}\n")


def _labels_instruction(labels: Mapping[str, str], dockerfile: Dockerfile) -> Instruction | None:
    """`--label` as the last step, as Docker has it."""
    if not labels:
        return None
    last = dockerfile.stages[-1].instructions[-1] if dockerfile.stages[-1].instructions else dockerfile.stages[-1].first
    pairs = tuple(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(labels.items()))
    text = " ".join(pairs)
    return Instruction(
        name="LABEL",
        text=text,
        words=pairs,
        line=last.last_line,
        last_line=last.last_line,
        original=f"LABEL {text}",
        file=last.file,
    )


def _quoted(text: str) -> str:
    """A word in which nothing is special: single quotes, and what they cannot hold in double ones."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
