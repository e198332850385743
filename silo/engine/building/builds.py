"""The use cases around building: one build, pruning what builds have left, and what a killed daemon left unfinished."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from silo.engine.building.build import Build
from silo.engine.building.images import ImageFinder
from silo.engine.building.mounts import CACHE_LABEL, CacheLocks
from silo.engine.building.ports import BuildFiles, BuildOutput, StepStore
from silo.engine.building.request import BuildRequest
from silo.engine.building.running import BUILD_LABEL, Runner
from silo.engine.building.stage import short
from silo.engine.containers import Containers
from silo.engine.events import EventBus
from silo.engine.files import ContainerFiles
from silo.engine.filters import Filters, check_keys, parse_moment_ns
from silo.engine.parts import Parts
from silo.engine.roster import Roster
from silo.engine.states import ALIVE
from silo.errors import Conflict, NotFound, SiloError
from silo.model.clock import parse_time
from silo.model.container import Status
from silo.model.ids import new_id
from silo.model.image import Image

log = logging.getLogger(__name__)

_UNFINISHED = ALIVE | {Status.CREATED, Status.RESTARTING}


class Builds:
    """`docker build` and `docker builder prune`."""

    def __init__(
        self,
        parts: Parts,
        roster: Roster,
        events: EventBus,
        containers: Containers,
        container_files: ContainerFiles,
        *,
        store: StepStore,
        files: BuildFiles,
    ) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events
        self._containers = containers
        self._container_files = container_files
        self._store = store
        self._files = files
        self._locks = CacheLocks()
        self._running: dict[str, Build] = {}

    async def build(self, request: BuildRequest, chunks: AsyncIterator[bytes], output: BuildOutput) -> Image:
        """Raises SiloError naming the Dockerfile's line; a cancelled build leaves nothing but steps for the cache."""
        self._parts.runtime(request.isolation)
        for tag in request.tags:
            self._store.check_tag(tag)
        build_id = new_id()
        build = Build(
            store=self._store,
            files=self._files,
            personalities=self._parts.personalities,
            runner=Runner(self._containers, self._container_files, self._store, request, output, build_id=build_id),
            finder=ImageFinder(self._store, request, output, self._events),
            request=request,
            output=output,
            locks=self._locks,
        )
        self._running[build_id] = build
        try:
            image = await build.run(chunks)
        finally:
            del self._running[build_id]
        self._events.publish("image", "build", image.id, {"name": request.tags[0] if request.tags else image.id})
        await output.tell_image(image.id)
        await output.say(f"Successfully built {short(image.id)}\n")
        for tag in image_tags(request):
            self._events.publish("image", "tag", image.id, {"name": tag})
            await output.say(f"Successfully tagged {tag}\n")
        return image

    def images_in_use(self) -> dict[str, str]:
        """Images of running builds, by id: they are nobody's garbage."""
        return {image: f"build {build_id}" for build_id, build in self._running.items() for image in build.images}

    # Pruning

    async def prune(self, filters: Filters, *, everything: bool = False) -> tuple[tuple[str, ...], int]:
        """Remove steps that lead to no named image and that nothing uses; `everything`: the caches of RUN --mount too.

        Answers (ids, bytes freed).
        """
        check_keys(filters, ("until", "id", "type", "unused-for", "inuse", "shared", "private", "parent", "mutable"))
        until = [parse_moment_ns(text) for text in filters.get("until", ())]
        before = self._store.disk_usage_bytes()
        used = {live.record.image_id: live.id for live in self._roster} | self.images_in_use()
        removed: list[str] = []
        for image in self._store.all():
            recent = any(parse_time(image.created) >= moment for moment in until if image.created)
            if image.tags or image.digests or not _is_step(image) or image.id in used or recent:
                continue
            if self._store.find(image.id) is None or self._store.children(image.id):
                continue
            try:
                changes = self._store.remove(image.id, force=True, in_use=used)
            except (Conflict, NotFound):
                continue
            removed += [change.subject for change in changes if change.action == "deleted"]
        freed = max(0, before - self._store.disk_usage_bytes())
        if everything:
            freed += self._drop_caches(removed)
        return tuple(removed), freed

    def _drop_caches(self, removed: list[str]) -> int:
        storage, freed = self._parts.storage, 0
        mounted = {point.name for live in self._roster for point in live.record.mounts if point.name}
        for volume in storage.volumes():
            if CACHE_LABEL in volume.labels and volume.name not in mounted:
                size = storage.volume_size_bytes(volume.name)
                storage.remove_volume(volume.name)
                removed.append(volume.name)
                freed += size
        return freed

    # After a daemon's death

    def find_unfinished(self) -> tuple[str, ...]:
        """Containers of steps that the last daemon did not finish; to be asked before their ends are dealt with."""
        return tuple(
            live.id
            for live in self._roster
            if BUILD_LABEL in live.record.config.labels
            and live.record.config.build_step
            and live.record.state.status in _UNFINISHED
        )

    async def remove_unfinished(self, ids: tuple[str, ...]) -> None:
        """Nobody waits for them any more."""
        for container_id in ids:
            try:
                await self._containers.remove(container_id, force=True, volumes=True)
            except NotFound:
                continue
            except SiloError as error:
                log.error("removing the container %s of an unfinished build: %s", container_id[:12], error)


def _is_step(image: Image) -> bool:
    """Made by a build or a commit here, not loaded or pulled."""
    return bool(image.parent) or not (image.layers or image.history)


def image_tags(request: BuildRequest) -> tuple[str, ...]:
    """The tags as Docker shows them, with the default one."""
    return tuple(tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest" for tag in request.tags)
