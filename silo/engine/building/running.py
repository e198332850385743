"""RUN: a container of the present image, through the engine's own creation and life; its files become the next image."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

import msgspec

from silo.engine.attachments import ContainerAttachment
from silo.engine.building.commands import Executed
from silo.engine.building.failure import failed_command
from silo.engine.building.ports import BuildOutput, StepStore
from silo.engine.building.request import BuildRequest
from silo.engine.creation import Created
from silo.engine.roster import WaitResult
from silo.errors import NotFound
from silo.model.container import ContainerConfig, Security
from silo.model.finishing import to_the_end
from silo.model.image import Healthcheck, HistoryEntry, Image, ImageConfig
from silo.model.mount import MountRequest

BUILD_LABEL = "com.silo.build"
"""On the containers of steps: one that a killed daemon left unfinished is removed by the next."""


class StepContainers(Protocol):
    """What of silo.engine.containers.Containers a step uses."""

    async def create(self, config: ContainerConfig, *, name: str = "") -> Created: ...
    async def start(self, reference: str) -> None: ...
    async def attach(
        self, reference: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool = False, stream: bool = True
    ) -> ContainerAttachment: ...
    async def wait(self, reference: str, condition: str = "not-running") -> WaitResult: ...
    async def remove(
        self, reference: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None: ...


class StepFiles(Protocol):
    """What of silo.engine.files.ContainerFiles a step uses."""

    def open_layer(self, reference: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class RunStep(msgspec.Struct, frozen=True, kw_only=True):
    """One RUN with everything looked up. `shown` is how an error names the command."""

    command: Executed
    shown: str
    env: tuple[str, ...]
    network_mode: str
    mounts: tuple[MountRequest, ...]


class Runner:
    """Runs the steps of one build."""

    def __init__(
        self,
        containers: StepContainers,
        files: StepFiles,
        store: StepStore,
        request: BuildRequest,
        output: BuildOutput,
        *,
        build_id: str,
    ) -> None:
        self._containers = containers
        self._files = files
        self._store = store
        self._request = request
        self._output = output
        self._build_id = build_id

    async def run(self, step: RunStep, image: Image, config: ImageConfig, entry: HistoryEntry) -> Image:
        """Raises StepFailed, ProcessStartFailed and what ports raise. A failed step's container stays, unless it is not wanted
        or nobody waits for the build any more."""
        created = await self._containers.create(self._container(step, image, config))
        keep = False
        try:
            await self._output.say(f" ---> Running in {created.id[:12]}\n")
            code = await self._follow(created.id)
            if code != 0:
                keep = not self._request.force_remove
                raise failed_command(step.shown, code)
            async with self._files.open_layer(created.id) as chunks:
                made = await self._store.commit(image, chunks, reference="", config=config, entry=entry)
            keep = not (self._request.remove or self._request.force_remove)
        finally:
            if not keep:
                # somebody may have removed it before
                with suppress(NotFound):
                    # to its end, also when the build is cancelled once more meanwhile
                    await to_the_end(self._containers.remove(created.id, force=True, volumes=True))
        if not keep:
            await self._output.say(f" ---> Removed intermediate container {created.id[:12]}\n")
        return made

    async def _follow(self, container_id: str) -> int:
        """Start, pass the output on as it comes, answer the exit code."""
        attachment = await self._containers.attach(container_id, stdin=False, stdout=True, stderr=True)
        ended = asyncio.ensure_future(self._containers.wait(container_id, "next-exit"))
        # It has to be registered before a program can end.
        await asyncio.sleep(0)
        decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}
        try:
            await self._containers.start(container_id)
            async for stream, data in attachment.output():
                if text := decoders[stream].decode(data):
                    await self._output.say(text)
            return (await ended).exit_code
        finally:
            attachment.close()
            ended.cancel()

    def _container(self, step: RunStep, image: Image, config: ImageConfig) -> ContainerConfig:
        request = self._request
        return ContainerConfig(
            image=image.id,
            user=config.user or None,
            env=(*config.env, *step.env),
            cmd=step.command.args,
            entrypoint=(),
            working_dir=config.working_dir or None,
            args_escaped=step.command.args_escaped,
            labels={BUILD_LABEL: self._build_id},
            healthcheck=Healthcheck(test=("NONE",)),
            mounts=step.mounts,
            network_mode=step.network_mode,
            extra_hosts=request.extra_hosts,
            isolation=request.isolation,
            resources=request.resources,
            security=Security(seccomp=request.seccomp),
            build_step=True,
        )
