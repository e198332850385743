"""Clones kept ready: with the image and an empty scratch mounted, exercised once, and standing still until a container takes one.

What is kept is what was used last, for each personality: the pool learns a recipe from every start. Standing still they use no
processor; their memory is given back when the host runs short of it, and so are templates that nobody uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from silo.errors import SiloError
from silo.isolation import run_files
from silo.isolation.seccomp import SeccompSource
from silo.isolation.vm.ahead import PARKED_NAME, begin_ahead
from silo.isolation.vm.clones import Clone, Clones
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.image_files import ImageFile, ImageFiles
from silo.isolation.vm.session import root_mounts
from silo.isolation.vm.shapes import Shape, host_limits
from silo.isolation.vm.warming import rehearse_linux, rehearse_requests
from silo.isolation.vm.windows import exercise as exercise_windows
from silo.model.container import Resources
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan

log = logging.getLogger(__name__)

_REFILL_DELAY_S = 0.5
_LOOK_S = 10.0
_REMEMBERED_S = 86400.0
_LEAST_AVAILABLE = 0.1
"""Of the host's memory: below this the pool is given up."""


class VmRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What the clone of a container has to be like; `begun` as in Shape."""

    vm: str
    memory_bytes: int
    processors: int
    personality: PersonalityName
    layers: tuple[Path, ...]
    begun: bytes = b""


class _Recipes(msgspec.Struct, frozen=True, kw_only=True):
    recipes: tuple[VmRecipe, ...] = ()


class VmPool:
    """`size` clones for each personality that was used; `ceiling_bytes` for all of them together; 0 is off."""

    def __init__(
        self,
        *,
        size: int,
        ceiling_bytes: int,
        clones: Clones,
        images: ImageFiles,
        scratches: Path,
        seccomp: SeccompSource,
        shape_of: Callable[[VmRecipe], Awaitable[Shape]],
        recipe_file: Path,
    ) -> None:
        self._size = size
        self._ceiling = ceiling_bytes
        self._clones = clones
        self._images = images
        self._scratches = scratches
        self._seccomp = seccomp
        self._shape_of = shape_of
        self._file = recipe_file
        self._recipes: dict[PersonalityName, VmRecipe] = {}
        self._ready: list[tuple[VmRecipe, Clone]] = []
        self._filling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if not self._size:
            return
        found = run_files.load(self._file, _Recipes)
        if found is not None and time.time() - self._file.stat().st_mtime < _REMEMBERED_S:
            self._recipes = {recipe.personality: recipe for recipe in found.recipes}
            self._fill(_REFILL_DELAY_S)
        self._looking = asyncio.create_task(self._look_after(), name="vm-pool")

    def take(self, recipe: VmRecipe) -> Clone | None:
        """One that is like this and alive."""
        for entry in self._ready:
            if entry[0] == recipe:
                self._ready.remove(entry)
                if entry[1].vm.alive:
                    return entry[1]
                asyncio.get_running_loop().create_task(self._clones.end(entry[1]))
                break
        return None

    def learn(self, recipe: VmRecipe) -> None:
        """A container like this was started."""
        if not self._size:
            return
        if self._recipes.get(recipe.personality) != recipe:
            self._recipes[recipe.personality] = recipe
        with contextlib.suppress(OSError):
            run_files.save(self._file, _Recipes(recipes=tuple(self._recipes.values())))
        self._fill(_REFILL_DELAY_S)

    def report(self) -> str:
        return f"{len(self._ready)} ready" if self._size else "off"

    # --- filling

    def _fill(self, delay_s: float) -> None:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill_up(delay_s), name="fill-vm-pool")

    async def _fill_up(self, delay_s: float) -> None:
        # the container that was just started goes first
        await asyncio.sleep(delay_s)
        try:
            while True:
                # each time: something else may have been learned while one was made
                await self._drop_others()
                recipe = self._missing()
                if recipe is None or not self._has_room():
                    return
                self._ready.append((recipe, await self._make(recipe)))
        except SiloError as error:
            log.warning("the pool of virtual machines is not filled: %s", error)

    async def _drop_others(self) -> None:
        wanted = set(map(run_files.encode, self._recipes.values()))
        for entry in [entry for entry in self._ready if run_files.encode(entry[0]) not in wanted]:
            self._ready.remove(entry)
            await self._clones.end(entry[1])
            entry[1].scratch.unlink(missing_ok=True)

    def _missing(self) -> VmRecipe | None:
        for recipe in self._recipes.values():
            if sum(entry[0] == recipe for entry in self._ready) < self._size:
                return recipe
        return None

    def _has_room(self) -> bool:
        held = sum(self._clones.memory_bytes(clone) for _, clone in self._ready)
        return held < self._ceiling and _available() > 2 * _LEAST_AVAILABLE

    async def _make(self, recipe: VmRecipe) -> Clone:
        """Raises what starting a clone raises; nothing is left then."""
        shape = await self._shape_of(recipe)
        image = await self._images.ensure(recipe.layers, map_it=shape.maps_image)
        scratch = self._scratches / f"pool-{secrets.token_hex(8)}.img"
        clone = await self._clones.start(shape, image, scratch, host_limits(Resources(), shape.memory_bytes))
        try:
            await clone.session.reseed("pool", secrets.token_hex(16))
            await self._warm(clone, recipe, image)
            clone.rooted = True
            await clone.vm.monitor.execute("stop")
        except BaseException:
            await asyncio.shield(self._clones.end(clone))
            scratch.unlink(missing_ok=True)
            raise
        return clone

    async def _warm(self, clone: Clone, recipe: VmRecipe, image: ImageFile) -> None:
        """What can be done before the order is done; what will be asked then has been asked once."""
        session = clone.session
        if clone.begun is not None:
            # a silo, in a clone of its template (Chooser.shape_in_pool)
            await rehearse_requests(session)
            await exercise_windows(session)
            await session.guest.configure(MAIN, PARKED_NAME)
            return
        await session.mount(root_mounts(mapped=image.mapped, volatile=False))
        await rehearse_linux(session, self._seccomp, entry=bool(recipe.begun))
        if recipe.begun:
            clone.begun = run_files.decode(recipe.begun, ContainerPlan)
            await begin_ahead(session, clone.begun, self._seccomp)

    # --- pressure

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if _available() < _LEAST_AVAILABLE:
                log.warning("the host runs short of memory: the pool of virtual machines is given up")
                await self.drop()
                self._clones.collect(idle_s=0)
            else:
                self._clones.collect(keep=frozenset(clone.shape for _, clone in self._ready))

    async def drop(self) -> None:
        """Give up all that stand ready."""
        ready, self._ready = self._ready, []
        for _, clone in ready:
            await self._clones.end(clone)
            clone.scratch.unlink(missing_ok=True)

    async def close(self) -> None:
        for task in (self._filling, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self.drop()


def _available() -> float:
    """The share of the host's memory that programs can still have."""
    values = {}
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                values[name] = int(rest.split()[0])
    return values.get("MemAvailable", 1) / max(1, values.get("MemTotal", 1))
