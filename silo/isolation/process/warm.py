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
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from silo.errors import SiloError
from silo.host import namespaces
from silo.isolation import run_files
from silo.isolation.process.live import Live
from silo.isolation.process.record import Paths
from silo.model.container import Namespaces, Resources
from silo.model.ids import new_id
from silo.model.mount import MountKind
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, LaunchPlan, ProcessPlan, Rootfs

log = logging.getLogger(__name__)

COMPUTER_NAME = "SILO_COMPUTER_NAME"
# making one takes half a second of work that a container just started shall not suffer from
_REFILL_DELAY_S = 0.5
_RETRY_DELAY_S = 60.0


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All of a plan that cannot be changed once pid 1 runs."""

    layers: tuple[Path, ...]
    volatile: bool
    process: ProcessPlan
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    shm_size_bytes: int
    auto_remove: bool


def find_recipe(plan: ContainerPlan) -> Recipe | None:
    """None for a plan that a silo made ahead cannot serve."""
    resources = plan.resources
    plain = (
        plan.personality == PersonalityName.WINDOWS
        and plan.launch is not None
        and not plan.process.tty
        and plan.namespaces == Namespaces()
        and plan.network == "private"
        and plan.seccomp == "default"
        and not (plan.privileged or plan.sysctls or plan.init or plan.rootfs.read_only or plan.domainname)
        and not (resources.ulimits or resources.devices or resources.device_cgroup_rules or resources.oom_score_adj)
        and all(mount.kind is not MountKind.TMPFS for mount in plan.mounts)
    )
    if not plain:
        return None
    env = tuple(word for word in plan.process.env if not word.startswith(f"{COMPUTER_NAME}="))
    return Recipe(
        layers=plan.rootfs.layers,
        volatile=plan.rootfs.volatile,
        process=msgspec.structs.replace(plan.process, env=env, console_size=None),
        masked_paths=plan.masked_paths,
        readonly_paths=plan.readonly_paths,
        shm_size_bytes=resources.shm_size_bytes,
        auto_remove=plan.auto_remove,
    )


def build_warm_plan(recipe: Recipe, container_id: str, directory: Path) -> ContainerPlan:
    name = f"W{container_id[:10].upper()}"
    env = (*recipe.process.env, f"{COMPUTER_NAME}={name}")
    return ContainerPlan(
        id=container_id,
        personality=PersonalityName.WINDOWS,
        image_id="",
        rootfs=Rootfs(layers=recipe.layers, scratch=directory, volatile=recipe.volatile),
        process=msgspec.structs.replace(recipe.process, env=env),
        launch=LaunchPlan(command_line="", directory=""),
        directory=directory,
        hostname=name,
        masked_paths=recipe.masked_paths,
        readonly_paths=recipe.readonly_paths,
        resources=Resources(shm_size_bytes=recipe.shm_size_bytes),
        # the pipe can be closed later, not made
        open_stdin=True,
        auto_remove=recipe.auto_remove,
    )


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
            run_files.save(self._recipe_file, recipe)
        self._fill(_REFILL_DELAY_S)

    def take(self, plan: ContainerPlan) -> Live | None:
        """A silo that waits, if one is right for this plan and its scratch is empty."""
        wanted = find_recipe(plan)
        if wanted is None or not self._ready or not _is_fresh(plan.rootfs.scratch):
            return None
        # Those of a former recipe wait until they are discarded: another image's files are in them.
        for live in [live for live in self._ready if find_recipe(live.record.plan) == wanted]:
            self._ready.remove(live)
            if namespaces.start_time(live.record.pid) == live.record.pid_started:
                self._fill(_REFILL_DELAY_S)
                return live
        self._fill(_REFILL_DELAY_S)
        return None

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
        for name in ("upper", "work"):
            (directory / name).mkdir(parents=True)
        try:
            return await self._begin(build_warm_plan(recipe, container_id, directory))
        except BaseException:
            await asyncio.shield(self._discard(container_id))
            shutil.rmtree(directory, ignore_errors=True)
            raise

    async def _discard_unlike(self) -> None:
        """Silos made for another recipe: the image has changed."""
        for live in tuple(self._ready):
            if find_recipe(live.record.plan) != self._recipe:
                self._ready.remove(live)
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


def computer_name(plan: ContainerPlan) -> str:
    for word in plan.process.env:
        if word.startswith(f"{COMPUTER_NAME}="):
            return word.partition("=")[2]
    return plan.hostname.upper()[:15]
