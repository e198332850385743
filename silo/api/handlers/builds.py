"""`docker build` and `docker builder prune`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from silo.api.call import Call, Reply, reply_json
from silo.api.decode.build import parse_build
from silo.api.handlers.progress import ProgressStream
from silo.engine.building.failure import StepFailed
from silo.engine.engine import Engine
from silo.errors import SiloError

_KEPT_CHARACTERS = 256 * 1024


class BuildHandlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, call: Call) -> None:
        """What fails before the first line (a request, a Dockerfile that does not parse) is a status, the rest an error line."""
        builds = self._engine.builds
        request = parse_build(call, default_isolation=self._engine.default_isolation)
        output = BuildStream(call, quiet=request.quiet)
        try:
            image = await output.run(builds.build(request, call.chunks(), output))
            if request.quiet:
                await output.send({"stream": f"{image.id}\n"})
        except SiloError as error:
            if not output.begun and not isinstance(error, StepFailed):
                raise
            await output.tell_kept()
            detail: dict[str, Any] = {"message": str(error)}
            if isinstance(error, StepFailed):
                detail["code"] = error.code
            await output.send({"errorDetail": detail, "error": str(error)})

    async def prune(self, call: Call) -> Reply:
        removed, freed = await self._engine.builds.prune(call.filters(), everything=call.flag("all"))
        return reply_json({"CachesDeleted": list(removed) or None, "SpaceReclaimed": freed})


class BuildStream:
    """silo.engine.building.ports.BuildOutput as Docker's JSON lines. Quiet keeps the end of what it does not say, for a failure."""

    def __init__(self, call: Call, *, quiet: bool) -> None:
        self._call = call
        self._quiet = quiet
        self._kept: list[str] = []
        self._progress = ProgressStream(call, quiet=quiet)
        self.begun = False

    async def say(self, text: str) -> None:
        if self._quiet:
            self._kept.append(text)
            if sum(map(len, self._kept)) > _KEPT_CHARACTERS:
                self._kept = ["".join(self._kept)[-_KEPT_CHARACTERS // 2 :]]
            return
        await self.send({"stream": text})

    async def tell_image(self, image_id: str) -> None:
        await self.send({"aux": {"ID": image_id}})

    def report(self, item: str, status: str, done: int, total: int) -> None:
        self._progress.report(item, status, done, total)

    async def tell_kept(self) -> None:
        """What was kept silent: somebody wants to know why it failed."""
        if self._kept:
            await self.send({"stream": "".join(self._kept)})
            self._kept = []

    async def send(self, line: dict[str, Any]) -> None:
        self._begin()
        await self._progress.say(line)

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._call.begin("application/json")

    async def run(self, work: Any) -> Any:
        """Await `work` while the progress of its pulls goes out."""
        task = asyncio.ensure_future(work)
        relay = asyncio.ensure_future(self._relay())
        try:
            return await asyncio.shield(task)
        finally:
            relay.cancel()
            if not task.done():
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(task, relay, return_exceptions=True)

    async def _relay(self) -> None:
        while True:
            line = await self._progress.next_line()
            self._begin()
            await self._call.write_json(line)
