"""One stage of a build: an image, and instructions that change it one after another."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from silo.dockerfile.options import parse_path
from silo.dockerfile.parser import parse_trigger
from silo.dockerfile.run_options import parse_run_options
from silo.dockerfile.syntax import Instruction
from silo.engine.building.cache import Cache
from silo.engine.building.commands import SCRIPTS_LINUX, SCRIPTS_WINDOWS, run_command_of, shell_of
from silo.engine.building.copying import CopyPlanner, FindTree, apply_copy
from silo.engine.building.failure import place
from silo.engine.building.metadata import Editor, join_directory, with_variable
from silo.engine.building.mounts import CacheLocks, MountPlanner
from silo.engine.building.ports import BuildFiles, BuildOutput, StepStore
from silo.engine.building.request import BuildRequest
from silo.engine.building.running import Runner, RunStep
from silo.engine.building.variables import Scope
from silo.engine.ports import Personality
from silo.errors import InvalidRequest, SiloError, Unsupported
from silo.model.clock import now
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.mount import MountKind, MountRequest
from silo.model.platform import PersonalityName
from silo.model.windows_paths import is_on_drive, windows_path

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StageParts(msgspec.Struct, frozen=True, kw_only=True):
    """What every stage of a build shares."""

    store: StepStore
    files: BuildFiles
    runner: Runner
    cache: Cache
    output: BuildOutput
    request: BuildRequest
    locks: CacheLocks
    find_tree: FindTree
    escape: str


class StageBuilder:
    """Carries out instructions; `image` is the newest image, `config` may be ahead of it by what no step has committed."""

    def __init__(self, parts: StageParts, image: Image, scope: Scope, personality: Personality) -> None:
        self._parts = parts
        self._personality = personality
        self._windows = personality.name is PersonalityName.WINDOWS
        self._editor = Editor(scope, windows=self._windows, escape=parts.escape)
        self.scope = scope
        self.image = image
        self.config = _begun(image.config, windows=self._windows)
        self.author = image.author

    async def run_triggers(self, first: Instruction) -> None:
        """What the image's own Dockerfile has left for its children (ONBUILD); `first` is the FROM that names it."""
        triggers = self.image.config.on_build
        if not triggers:
            return
        await self._parts.output.say(f"# Executing {len(triggers)} build trigger{'s'[: len(triggers) > 1]}\n")
        for text in triggers:
            await self.run(parse_trigger(text, escape=self._parts.escape, name=f"{first.where}: ONBUILD"))

    async def run(self, instruction: Instruction) -> None:
        """Raises SiloError with the instruction's file and line."""
        try:
            meta = self._editor.apply(instruction, self.config)
            if meta is not None:
                self.author = meta.author or self.author
                await self._commit_nothing(meta.text, meta.config)
            elif instruction.name == "RUN":
                await self._run(instruction)
            elif instruction.name == "WORKDIR":
                await self._work_directory(instruction)
            else:
                await self._copy(instruction)
        except SiloError as error:
            raise place(error, instruction) from error

    # Steps

    async def _commit_nothing(self, text: str, config: ImageConfig) -> None:
        created_by = self._nop(text)
        if await self._use_cache(created_by, config):
            return
        self.image = await self._parts.store.commit(
            self.image, None, reference="", config=config, entry=self._entry(created_by)
        )
        await self._tell()

    async def _work_directory(self, instruction: Instruction) -> None:
        path, shown = self._directory(parse_path(instruction, lambda text: self._fill(text, instruction)))
        config = msgspec.structs.replace(self.config, working_dir=shown)
        created_by = self._nop(f"WORKDIR {shown}")
        if await self._use_cache(created_by, config):
            return
        async with self._parts.files.change(self.image) as change:
            async with change.open():
                owner = (0, 0)
                if self.config.user and not self._windows:
                    owner = await change.find_owner(self.config.user)
                made = await change.make_directory(path, owner)
            self.image = await self._parts.store.commit(
                self.image,
                change.layer() if made else None,
                reference="",
                config=config,
                entry=self._entry(created_by),
            )
        await self._tell()

    async def _copy(self, instruction: Instruction) -> None:
        parts = self._parts
        variables = self.scope.variables(self.config.env)
        async with AsyncExitStack() as stack:
            planner = CopyPlanner(
                parts.files, stack, parts.find_tree, lambda text: self._fill(text, instruction), variables
            )
            step = await planner.plan(instruction, windows=self._windows)
            created_by = self._nop(step.text)
            if await self._use_cache(created_by, self.config):
                return
            path = self._place(step.copy.destination)
            change = await stack.enter_async_context(parts.files.change(self.image))
            await apply_copy(change, step, path)
            self.image = await parts.store.commit(
                self.image,
                change.layer(),
                reference="",
                config=self.config,
                entry=self._entry(created_by),
            )
        await self._tell()

    async def _run(self, instruction: Instruction) -> None:
        parts = self._parts
        options = parse_run_options(instruction, lambda text: self._fill(text, instruction))
        if options.security != "sandbox":
            raise Unsupported(f"RUN --security={options.security} is not supported")
        if options.devices:
            raise Unsupported(f"RUN --device={options.devices[0]} is not supported")
        command = run_command_of(instruction, self.config, windows=self._windows)
        if not command.args or not command.args[0].strip():
            raise InvalidRequest("RUN names no command")
        env, known = self.scope.for_run(self.config.env)
        async with AsyncExitStack() as stack:
            planner = MountPlanner(parts.files, stack, parts.find_tree, parts.locks)
            mounts = await planner.plan(options.mounts, windows=self._windows)
            words = (*command.args, *((f"#{mounts.key}",) if mounts.key else ()), *_script_key(command.script))
            created_by = " ".join((*((f"|{len(known)}", *known) if known else ()), *words))
            if await self._use_cache(created_by, self.config):
                return
            await planner.lock_caches(options.mounts)
            requests = list(mounts.requests)
            if command.script is not None:
                name, content = command.script
                tree = await stack.enter_async_context(parts.files.write({name: content}, mode=0o755))
                target = SCRIPTS_WINDOWS if self._windows else SCRIPTS_LINUX
                requests.append(
                    MountRequest(kind=MountKind.BIND, source=str(tree.directory), target=target, read_only=True)
                )
            step = RunStep(
                command=command,
                shown=" ".join(command.args),
                env=env,
                network_mode=parts.request.network_mode if options.network == "default" else options.network,
                mounts=tuple(requests),
            )
            self.image = await parts.runner.run(step, self.image, self.config, self._entry(created_by))
        await self._tell()

    # Within

    async def _use_cache(self, created_by: str, config: ImageConfig) -> bool:
        """Whether the step was made before; its image is the newest then. The configuration is the step's from now on."""
        found = await self._parts.cache.find(self.image, created_by, config, self.author)
        self.config = config
        if found is None:
            return False
        await self._parts.output.say(" ---> Using cache\n")
        self.image = found
        await self._tell()
        return True

    async def _tell(self) -> None:
        await self._parts.output.say(f" ---> {short(self.image.id)}\n")

    def _entry(self, created_by: str) -> HistoryEntry:
        return HistoryEntry(created=now(), created_by=created_by, author=self.author)

    def _nop(self, text: str) -> str:
        """How history tells a step that ran nothing."""
        return f"{' '.join(shell_of(self.config, windows=self._windows))} #(nop)  {text}"

    def _fill(self, text: str, instruction: Instruction) -> str:
        return self.scope.fill(text, self.config.env, instruction)

    def _directory(self, word: str) -> tuple[str, str]:
        """(POSIX path in the root, path in the image's words) of WORKDIR."""
        current = self.config.working_dir
        if not self._windows:
            path = join_directory(current, word)
            return path, path
        path = self._place(word)
        return path, windows_path(path) or "C:\\"

    def _place(self, word: str) -> str:
        """A path in the image's words → in its Linux root. Raises Unsupported for another drive than C:, which no image has."""
        path = self._personality.map_path(word, working_dir=self.config.working_dir)
        if self._windows and not is_on_drive(path):
            raise Unsupported(f"the drive {word[:2]} of {word} is not supported", hint="an image has C: only")
        return path


def short(image_id: str) -> str:
    """An image's id as progress shows it."""
    return image_id.removeprefix("sha256:")[:12]


def _begun(config: ImageConfig, *, windows: bool) -> ImageConfig:
    """Triggers are for one generation; a Linux image without PATH gets Docker's, so that `ENV PATH=$PATH:/x` means something."""
    config = msgspec.structs.replace(config, on_build=())
    if not windows and not any(pair.startswith("PATH=") for pair in config.env):
        config = msgspec.structs.replace(
            config, env=with_variable(config.env, "PATH", _DEFAULT_PATH, ignore_case=False)
        )
    return config


def _script_key(script: tuple[str, bytes] | None) -> tuple[str, ...]:
    return (script[1].decode("utf-8", "replace"),) if script is not None else ()
