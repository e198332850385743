"""VMs for containers: clones of templates, each with its own user, cgroup, disks and identity.

<run root>/vms/
  template-N/   while a template is being made
  vm-N/         a VM, whose cgroup has the same name; record.json in it says whose it is (nobody's while it waits in the pool)
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import secrets
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from silo.errors import GuestError, SiloError, Unavailable
from silo.host.cgroups import CgroupTree
from silo.isolation.seccomp import SeccompSource
from silo.isolation.vm.accelerator import Choice, choose_accelerator
from silo.isolation.vm.ahead import warm_ahead
from silo.isolation.vm.command import IMAGE, IMAGE_BYTES, MAPPED, MAPPED_BYTES, Accelerator, Role
from silo.isolation.vm.disks import open_disk
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.image_files import ImageFile, ImageFiles
from silo.isolation.vm.machine import VirtualMachine, start_machine
from silo.isolation.vm.ranges import Range, Ranges
from silo.isolation.vm.scratch_disks import ScratchDisks
from silo.isolation.vm.session import GuestSession
from silo.isolation.vm.shapes import Shape, host_limits
from silo.isolation.vm.template import Template, Warm, make_template, start_clone
from silo.isolation.vm.warming import warm_linux
from silo.model.container import Resources
from silo.model.runtime import ContainerPlan
from silo.model.vm_image import VmImage

log = logging.getLogger(__name__)

BOOT_LIMIT_S = 300.0
ANSWER_LIMIT_S = 30.0
_TRIAL_LIMIT_S = 20.0
_TEMPLATE_IDLE_S = 900.0
_MOST_TEMPLATES = 8


@dataclass(slots=True, eq=False)
class Clone:
    """A VM whose agent is connected. Fresh from its template it is not reseeded, and nothing is mounted in it."""

    name: str
    directory: Path
    shape: Shape | None
    """None of a VM that an earlier daemon started."""
    session: GuestSession
    range: Range
    image: ImageFile
    scratch: Path
    """Its disk, which its container takes over."""
    limits: Resources
    """Of its cgroup."""
    rooted: bool = False
    """The container's root is mounted, as in one that comes from the pool."""
    begun: ContainerPlan | None = None
    """What of the container runs in it already, ahead of its order."""

    @property
    def vm(self) -> VirtualMachine:
        return self.session.vm


@dataclass(slots=True, eq=False)
class _Kept:
    """`scratch` is what the container that runs in it has written to: each clone begins with a copy."""

    template: Template
    scratch: Path | None = None
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        self.template.close()
        if self.scratch is not None:
            self.scratch.unlink(missing_ok=True)


class Shelf:
    """The templates that there are. Who makes one closes it; several runtimes may use it, one after the other."""

    def __init__(self) -> None:
        self.kept: dict[Shape, _Kept] = {}

    def scratches(self) -> frozenset[Path]:
        return frozenset(kept.scratch for kept in self.kept.values() if kept.scratch is not None)

    def close(self) -> None:
        for kept in self.kept.values():
            kept.close()
        self.kept.clear()


class Clones:
    def __init__(
        self,
        directory: Path,
        cgroups: CgroupTree,
        ranges: Ranges,
        images: ImageFiles,
        scratches: ScratchDisks,
        seccomp: SeccompSource,
        shelf: Shelf,
    ) -> None:
        self._directory = directory
        self._cgroups = cgroups
        self._ranges = ranges
        self._images = images
        self._scratches = scratches
        self._seccomp = seccomp
        self._templates = shelf.kept
        self._making: dict[Shape, asyncio.Task[_Kept]] = {}
        self._choice: Choice | None = None
        self._choosing = asyncio.Lock()

    # --- accelerator

    @property
    def choice(self) -> Choice | None:
        """None until it had to be known."""
        return self._choice

    async def accelerator(self, image: VmImage, wanted: str) -> Accelerator:
        """`wanted`: auto, kvm or tcg. Raises Unavailable when KVM is demanded and does not work."""
        async with self._choosing:
            if self._choice is None:
                if wanted == "tcg":
                    self._choice = Choice(Accelerator.TCG, "vm_acceleration is tcg")
                else:
                    self._choice = await choose_accelerator(lambda: self._try_kvm(image))
        if wanted == "kvm" and self._choice.accelerator is not Accelerator.KVM:
            raise Unavailable(
                f"KVM cannot be used: {self._choice.reason}",
                hint="mend that, or set vm_acceleration to auto: everything works without KVM, slower",
            )
        return self._choice.accelerator

    async def _try_kvm(self, image: VmImage) -> None:
        machine, files = build_guest(image.directory, memory_bytes=256 << 20, accelerator=Accelerator.KVM)
        name = f"trial-{secrets.token_hex(6)}"
        taken = await self._ranges.take()
        vm = None
        try:
            place, entry = await asyncio.to_thread(self._prepare, name, host_limits(Resources(), machine.memory_bytes))
            vm = await start_machine(place, machine, Role.COLD, uid=taken.first_id, files=files, entry_files=entry)
            await vm.monitor.execute("cont")
            session = GuestSession(vm)
            try:
                await session.connect(limit_s=_TRIAL_LIMIT_S)
            finally:
                session.client.close()
        finally:
            if vm is not None:
                await vm.end()
            await self.clear(name, taken.first_id)

    # --- templates

    async def _template(self, shape: Shape) -> _Kept:
        kept = self._templates.get(shape)
        if kept is None:
            making = self._making.get(shape)
            if making is None:
                making = asyncio.create_task(self._make(shape), name="make-template")
                self._making[shape] = making
                making.add_done_callback(lambda _: self._making.pop(shape, None))
            kept = await asyncio.shield(making)
        kept.used_at = time.monotonic()
        return kept

    async def _make(self, shape: Shape) -> _Kept:
        log.info("booting a template: %s, %d MiB", shape.personality, shape.memory_bytes >> 20)
        machine, files = build_guest(
            shape.image.directory, memory_bytes=shape.memory_bytes, accelerator=shape.accelerator
        )
        machine = dataclasses.replace(machine, processors=shape.processors, slots=True)
        slots, warm = await self._contents(shape)
        name = f"template-{secrets.token_hex(6)}"
        scratch = self._scratches.directory / f"{name}.img"
        taken = await self._ranges.take()
        try:
            place, entry = await asyncio.to_thread(self._prepare, name, host_limits(Resources(), shape.memory_bytes))
            await asyncio.to_thread(self._scratches.create, scratch)
            descriptor = open_disk(scratch, read_only=False)
            try:
                template = await make_template(
                    place,
                    machine,
                    uid=taken.first_id,
                    files={**files, **slots},
                    warm=warm,
                    limit_s=BOOT_LIMIT_S,
                    scratch=descriptor,
                    user_namespace=taken.namespace,
                    entry_files=entry,
                )
            finally:
                os.close(descriptor)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            await self.clear(name, taken.first_id)
        if not shape.begun:
            scratch.unlink()
        kept = self._templates[shape] = _Kept(template, scratch if shape.begun else None)
        self._make_room(kept)
        return kept

    def _make_room(self, fresh: _Kept) -> None:
        """Each image of Windows programs has a template of its own: those that were not used for longest go."""
        idle = [shape for shape, kept in self._templates.items() if not kept.users and kept is not fresh]
        for shape in sorted(idle, key=lambda shape: self._templates[shape].used_at):
            if len(self._templates) <= _MOST_TEMPLATES:
                return
            self._templates.pop(shape).close()

    async def _contents(self, shape: Shape) -> tuple[dict[str, Path], Warm]:
        """What stands in the template's slots, and how it gets warm: empty ones, or the image of what runs in it."""
        slots = {MAPPED: self._images.empty(MAPPED_BYTES), IMAGE: self._images.empty(IMAGE_BYTES)}
        plan = shape.begun_plan
        if plan is None:
            return slots, warm_linux
        image = await self._images.ensure(plan.rootfs.layers, map_it=shape.maps_image)
        place = MAPPED if image.mapped else IMAGE
        return {**slots, place: image.path}, warm_ahead(plan, self._seccomp, mapped=image.mapped)

    def collect(self, *, keep: Collection[Shape | None] = (), idle_s: float = _TEMPLATE_IDLE_S) -> int:
        """Let go of templates that nobody has cloned for a while; answers how many stay."""
        now = time.monotonic()
        for shape, kept in list(self._templates.items()):
            if not kept.users and shape not in keep and now - kept.used_at >= idle_s:
                del self._templates[shape]
                kept.close()
        return len(self._templates)

    def memory_bytes(self, clone: Clone) -> int:
        """What its cgroup is charged with."""
        with contextlib.suppress(SiloError, OSError):
            return self._cgroups.statistics(clone.name).memory_bytes
        return 0

    def report(self) -> tuple[int, int]:
        """(templates, bytes of memory that they hold)."""
        kept = self._templates.values()
        return len(kept), sum(entry.template.size_bytes for entry in kept)

    # --- clones

    async def start(
        self, shape: Shape, image: ImageFile, scratch: Path, limits: Resources, *, size_bytes: int = 0
    ) -> Clone:
        """A clone in its cgroup with these disks, its agent connected. A scratch that is not there is made as it has to be;
        `size_bytes`: with room for that much only.

        Raises HostError, NoSpace, Unavailable, GuestError, InvalidRequest (too large); nothing is left of it then.
        """
        kept = await self._template(shape)
        name = f"vm-{secrets.token_hex(8)}"
        kept.users += 1
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(_release, kept)
            taken = await self._ranges.take()
            undo.callback(self._ranges.give_back, taken.first_id)
            undo.push_async_callback(asyncio.to_thread, self._clear, name)
            place, entry = await asyncio.to_thread(self._prepare, name, limits)
            if not scratch.exists():
                await asyncio.to_thread(self._make_scratch, kept.scratch, scratch, size_bytes)
                undo.callback(scratch.unlink, missing_ok=True)
            descriptor = open_disk(scratch, read_only=False)
            try:
                vm = await start_clone(
                    kept.template,
                    place,
                    uid=taken.first_id,
                    user_namespace=taken.namespace,
                    scratch=descriptor,
                    files={MAPPED if image.mapped else IMAGE: image.path},
                    entry_files=entry,
                )
            finally:
                os.close(descriptor)
            session = GuestSession(vm)
            undo.push_async_callback(session.end)
            try:
                await session.connect(limit_s=ANSWER_LIMIT_S)
            except SiloError as error:
                raise GuestError(
                    f"the virtual machine does not answer: {error.brief}", details=vm.console.last_lines()
                ) from error
            undo.pop_all()
        _release(kept)
        return Clone(name, place, shape, session, taken, image, scratch, limits, begun=shape.begun_plan)

    def _make_scratch(self, original: Path | None, path: Path, size_bytes: int) -> None:
        if size_bytes:
            self._scratches.create_limited(path, size_bytes)
        elif original is None:
            self._scratches.create(path)
        else:
            self._scratches.copy(original, path)

    async def limit(self, clone: Clone, limits: Resources) -> None:
        """Other limits for its cgroup. Raises HostError, Unsupported."""
        await asyncio.to_thread(self._cgroups.apply, clone.name, limits, before=clone.limits)
        clone.limits = limits

    async def end(self, clone: Clone) -> None:
        """Nothing of it is left but its disk. Idempotent."""
        await clone.session.end()
        await self.clear(clone.name, clone.range.first_id)

    async def clear(self, name: str, first_id: int) -> None:
        """After a VM's end: its directory, its cgroup, its ids."""
        await asyncio.to_thread(self._clear, name)
        if first_id:
            self._ranges.give_back(first_id)

    def _clear(self, name: str) -> None:
        shutil.rmtree(self._directory / name, ignore_errors=True)
        with contextlib.suppress(SiloError):
            self._cgroups.remove(name)

    def clear_unknown(self, known: frozenset[str]) -> None:
        """What a former daemon left: VMs, directories and cgroups that nobody names. Blocks."""
        names = set(self._cgroups.existing())
        if self._directory.is_dir():
            names |= {entry.name for entry in os.scandir(self._directory)}
        for name in names - known:
            with contextlib.suppress(SiloError):
                self._cgroups.kill(name)
            self._clear(name)

    async def close(self) -> None:
        for making in list(self._making.values()):
            making.cancel()
        if self._making:
            await asyncio.wait(list(self._making.values()))

    # --- places

    def _prepare(self, name: str, limits: Resources) -> tuple[Path, tuple[str, ...]]:
        """A VM's directory, and the files to write to in order to enter its cgroup; `_clear` takes both away. Blocks."""
        place = self._directory / name
        place.mkdir(mode=0o700, parents=True)
        self._cgroups.create(name)
        self._cgroups.apply(name, limits)
        return place, self._cgroups.entry_files(name)


def _release(kept: _Kept) -> None:
    kept.users -= 1
    kept.used_at = time.monotonic()
