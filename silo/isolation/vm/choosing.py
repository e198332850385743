"""Which machine a container gets: its shape, from the container's plan and the settings; from the pool, or a new clone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from silo.isolation import run_files
from silo.isolation.vm.ahead import find_ahead
from silo.isolation.vm.clones import Clone, Clones
from silo.isolation.vm.image_files import ImageFiles
from silo.isolation.vm.shapes import Shape, host_limits, memory_of, processors_of
from silo.isolation.vm.vm_pool import VmPool, VmRecipe
from silo.model.container import Resources
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan
from silo.model.vm_image import SCRATCH_DISK, VmImage

FindImage = Callable[[str], Awaitable[VmImage]]
"""The utility VM of that name ("": the usual one), built when it can be and is not there yet. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class VmSettings:
    """`acceleration`: auto, kvm or tcg."""

    default_memory_bytes: int = 512 << 20
    scratch_bytes: int = 20 << 30
    acceleration: str = "auto"
    pool: int = 0
    pool_memory_bytes: int = 1 << 30


class Chooser:
    def __init__(self, clones: Clones, images: ImageFiles, find_image: FindImage, settings: VmSettings) -> None:
        self._clones = clones
        self._images = images
        self._find_image = find_image
        self._settings = settings

    def recipe(self, plan: ContainerPlan) -> VmRecipe:
        """A container that has a scratch already begins anew: what was begun ahead knows nothing of that."""
        fresh = not (plan.directory / SCRATCH_DISK).exists()
        begun = find_ahead(plan) if fresh else None
        return VmRecipe(
            vm=plan.vm,
            memory_bytes=memory_of(plan.resources, plan.personality, self._settings.default_memory_bytes),
            processors=processors_of(plan.resources, 1),
            personality=plan.personality,
            layers=plan.rootfs.layers,
            begun=run_files.encode(begun) if begun is not None else b"",
        )

    async def shape_in_pool(self, recipe: VmRecipe) -> Shape:
        """A silo waits in its template; what a Linux container begins with is quickly begun in any clone."""
        return await self.shape_of(recipe, begun=recipe.personality is PersonalityName.WINDOWS)

    async def shape_of(self, recipe: VmRecipe, *, begun: bool) -> Shape:
        """`begun`: of a template that holds it begun already, if it can be."""
        image = await self._find_image(recipe.vm)
        accelerator = await self._clones.accelerator(image, self._settings.acceleration)
        return Shape(
            image=image,
            memory_bytes=recipe.memory_bytes,
            processors=recipe.processors,
            personality=recipe.personality,
            accelerator=accelerator,
            begun=recipe.begun if begun else b"",
        )

    async def plain_shape(self) -> Shape:
        """For looking at a disk: any utility VM can."""
        memory = memory_of(Resources(), PersonalityName.LINUX, self._settings.default_memory_bytes)
        return await self.shape_of(
            VmRecipe(vm="", memory_bytes=memory, processors=1, personality=PersonalityName.LINUX, layers=()),
            begun=False,
        )

    async def clone(self, plan: ContainerPlan, pool: VmPool) -> Clone:
        """From the pool if it has one, else a new one. The container's disk lies where it belongs.

        Raises InvalidRequest (limits that no machine can have), NotFound (the utility VM), and what starting a clone raises.
        """
        recipe = self.recipe(plan)
        shape = await self.shape_of(recipe, begun=plan.parked or plan.launch is not None)
        limits, scratch = host_limits(plan.resources, shape.memory_bytes), plan.directory / SCRATCH_DISK
        fresh = not scratch.exists()
        limited = plan.rootfs.size_bytes > 0
        pooled = pool.take(recipe) if fresh and not limited else None
        if pooled is not None:
            clone = await self._adopt(pooled, scratch, limits)
        else:
            image = await self._images.ensure(recipe.layers, map_it=shape.maps_image)
            clone = await self._clones.start(shape, image, scratch, limits, size_bytes=plan.rootfs.size_bytes)
        if fresh and not limited and (recipe.begun or plan.launch is None):
            pool.learn(recipe)
        return clone

    async def _adopt(self, pooled: Clone, scratch: Path, limits: Resources) -> Clone:
        try:
            pooled.scratch.rename(scratch)
            pooled.scratch = scratch
            await self._clones.limit(pooled, limits)
            await pooled.vm.monitor.execute("cont")
        except BaseException:
            await asyncio.shield(self._clones.end(pooled))
            scratch.unlink(missing_ok=True)
            raise
        return pooled
