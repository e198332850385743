"""Warm silos: Windows containers that have been started before anybody asks, with the launcher ready. Each is used once.

What a silo has to be like is learnt from the last container that was started cold (`Recipe`), and remembered in the run
directory. A container that wants the same takes one and *dresses* it: the writable layer that the silo began on becomes the
container's, its names are changed, mounts are attached in its running mount namespace, limits are written.

    DATA_ROOT/warm/ID/   upper, work, log of a silo that waits
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from silo.errors import SiloError
from silo.host import namespaces
from silo.isolation import run_files
from silo.isolation.process.live import Live
from silo.isolation.process.record import Paths
from silo.isolation.warm_recipe import Recipe, build_warm_plan, find_recipe
from silo.model.ids import new_id
from silo.model.runtime import ContainerPlan

log = logging.getLogger(__name__)

# making one takes half a second of work that a container just started shall not suffer from
_REFILL_DELAY_S = 0.5
_RETRY_DELAY_S = 60.0


LayerStamps = tuple[tuple[int, int, int], ...]


class WarmSilos:
    """`begin` starts a silo up to where its launcher answers; `discard` releases it."""

    def __init__(
        self,
        size: int,
        paths: Paths,
        data_root: Path,
        begin: Callable[[ContainerPlan], Awaitable[Live]],
        discard: Callable[[str], Awaitable[None]],
    ) -> None:
        self._size = size
        self._recipe_file = paths.run_root / "warm.json"
        self._directory = data_root / "warm"
        self._begin = begin
        self._discard = discard
        self._recipe: Recipe | None = None
        self._ready: list[Live] = []
        self._layers: dict[str, LayerStamps] = {}
        """By silo: the directories that it has as they were. One that was deleted and made again is another."""
        self._filling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """After recovery: what a former daemon left is gone, so are its directories."""
        await asyncio.to_thread(shutil.rmtree, self._directory, True)
        if self._size:
            self._recipe = run_files.load(self._recipe_file, Recipe)
            if self._recipe is not None:
                self._fill(0.0)

    def learn(self, plan: ContainerPlan) -> None:
        """A container has been started cold: the next one like it shall find a warm silo."""
        recipe = find_recipe(plan)
        if not self._size or recipe is None:
            return
        if recipe != self._recipe:
            self._recipe = recipe
            try:
                run_files.save(self._recipe_file, recipe)
            except OSError as error:
                # the next daemon has to learn it again; a container's start does not fail for that
                log.warning("the recipe of warm silos cannot be remembered: %s", error)
        self._fill(_REFILL_DELAY_S)

    def take(self, plan: ContainerPlan) -> Live | None:
        """A silo that waits, if one is right for this plan and its scratch is empty."""
        wanted = find_recipe(plan)
        if wanted is None or not self._ready or not _is_fresh(plan.rootfs.scratch):
            return None
        # Those of a former recipe wait until they are discarded: another image's files are in them.
        for live in [live for live in self._ready if find_recipe(live.record.plan) == wanted and self._is_whole(live)]:
            self._forget(live)
            if namespaces.start_time(live.record.pid) == live.record.pid_started:
                self._fill(_REFILL_DELAY_S)
                return live
        self._fill(_REFILL_DELAY_S)
        return None

    def _is_whole(self, live: Live) -> bool:
        stamps = self._layers.get(live.id)
        return stamps is not None and stamps == layer_stamps(live.record.plan.rootfs.layers)

    def _forget(self, live: Live) -> None:
        self._ready.remove(live)
        self._layers.pop(live.id, None)

    def names(self) -> frozenset[str]:
        return frozenset(live.id for live in self._ready)

    def _fill(self, delay_s: float) -> None:
        if self._size and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._make_missing(delay_s), name="fill-warm-silos")

    async def _make_missing(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self._discard_unlike()
            while self._recipe is not None and len(self._ready) < self._size:
                self._ready.append(await self._make(self._recipe))
                await self._discard_unlike()
        except (SiloError, OSError) as error:
            log.warning("no Windows silo could be started ahead: %s", error)
            await asyncio.sleep(_RETRY_DELAY_S)

    async def _make(self, recipe: Recipe) -> Live:
        container_id = new_id()
        directory = self._directory / container_id
        stamps = layer_stamps(recipe.layers)
        for name in ("upper", "work"):
            (directory / name).mkdir(parents=True)
        try:
            live = await self._begin(build_warm_plan(recipe, container_id, directory))
            if stamps is not None:
                self._layers[live.id] = stamps
            return live
        except BaseException:
            await asyncio.shield(self._discard(container_id))
            shutil.rmtree(directory, ignore_errors=True)
            raise

    async def _discard_unlike(self) -> None:
        """Silos made for another recipe, or on an image that was removed since."""
        for live in tuple(self._ready):
            if find_recipe(live.record.plan) != self._recipe or not self._is_whole(live):
                self._forget(live)
                await self._drop(live)

    async def _drop(self, live: Live) -> None:
        await self._discard(live.id)
        await asyncio.to_thread(shutil.rmtree, live.record.plan.directory, True)

    def abandon(self) -> None:
        """Their keeper has died; they are dropped with the next recipe or at the end."""
        for live in self._ready:
            live.record = msgspec.structs.replace(live.record, pid_started=-1)

    async def close(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        ready, self._ready = self._ready, []
        for live in ready:
            await self._drop(live)


def layer_stamps(layers: Sequence[Path]) -> LayerStamps | None:
    """What tells a directory from another at its place; None where one is missing."""
    try:
        found = [path.stat() for path in layers]
    except FileNotFoundError:
        return None
    return tuple((status.st_dev, status.st_ino, status.st_ctime_ns) for status in found)


def _is_fresh(scratch: Path) -> bool:
    """Nothing has been written into the container's own layer (by `cp`, or by a former start)."""
    try:
        return not any(os.scandir(scratch / "upper"))
    except FileNotFoundError:
        return False


def move_scratch(source: Path, target: Path) -> None:
    """The layer that a silo runs on becomes a container's: the kernel holds the directories, not their names."""
    for name in ("upper", "work"):
        if (target / name).exists():
            shutil.rmtree(target / name)
        (source / name).rename(target / name)
    for entry in list(source.iterdir()):
        entry.unlink()
    source.rmdir()
