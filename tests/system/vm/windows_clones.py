"""Windows containers in clones of the real utility VM: cold in any clone, warm in those of a template whose silo runs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from silo.isolation.seccomp import SeccompSource
from silo.isolation.vm.ahead import dress_ahead, find_ahead, warm_ahead
from silo.isolation.vm.answers import Greeting
from silo.isolation.vm.command import IMAGE, IMAGE_BYTES, MAPPED, MAPPED_BYTES, Accelerator
from silo.isolation.vm.disks import open_disk
from silo.isolation.vm.folders import attach_folders
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.guest_spec import MAIN, build_early_spec, folders_of, read_special_files
from silo.isolation.vm.image_files import ImageFile, ImageFiles
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.ranges import Ranges
from silo.isolation.vm.scratch_disks import ScratchDisks
from silo.isolation.vm.session import GuestSession, folders_mount, root_mounts
from silo.isolation.vm.template import Template, Warm, make_template, start_clone
from silo.isolation.vm.warming import warm_linux
from silo.isolation.vm.windows import begin_silo, own_prefix
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, LaunchPlan, ProcessPlan, Rootfs
from silo.windows.base.environment import DRIVE_C, UNIX_ENVIRONMENT
from silo.windows.personality import START

MEMORY_BYTES = 512 << 20
SCRATCH_BYTES = 8 << 30
BOOT_LIMIT_S = 120
PROGRAM = Path(__file__).resolve().parents[2] / "contract" / "program.c"
_MACHINE_ID = "0123456789abcdef" * 2


def make_layers(folder: Path, base: tuple[Path, ...], compiler: str) -> tuple[Path, ...]:
    """The Windows base with C:\\program.exe above it."""
    drive = folder / "program" / DRIVE_C.lstrip("/")
    drive.mkdir(parents=True)
    subprocess.run([compiler, "-O1", "-o", drive / "program.exe", PROGRAM], check=True)
    return (folder / "program", *base)


def build_plan(layers: tuple[Path, ...], directory: Path, **fields: Any) -> ContainerPlan:
    """As the engine makes it of `run`; `directory` is made with the files that the engine writes."""
    directory.mkdir(parents=True, exist_ok=True)
    hostname = str(fields.get("hostname", "box"))
    files = {"hosts": f"127.0.0.1 localhost\n127.0.0.1 {hostname}\n", "hostname": f"{hostname}\n"}
    for name, text in files.items():
        (directory / name).write_text(text)
    env = tuple(f"{name}={value}" for name, value in UNIX_ENVIRONMENT.items())
    tty = bool(fields.pop("tty", False))
    mounts = [PlannedMount(target=f"/etc/{name}", source=directory / name, kind=MountKind.BIND) for name in files]
    plan = ContainerPlan(
        id="c" * 64,
        personality=PersonalityName.WINDOWS,
        image_id="sha256:" + "0" * 64,
        rootfs=Rootfs(layers=layers, scratch=directory),
        process=ProcessPlan(args=(START,), env=env, cwd=DRIVE_C, user="0:0", tty=tty),
        launch=launch("exit", "0"),
        directory=directory,
        hostname=hostname,
        mounts=(*mounts, *fields.pop("folders", ())),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
    )
    return msgspec.structs.replace(plan, **fields)


def launch(*words: str, **fields: Any) -> LaunchPlan:
    """C:\\program.exe with these words."""
    line = " ".join(f'"{word}"' if " " in word else word for word in ("C:\\program.exe", *words))
    return LaunchPlan(**{"command_line": line, "directory": "C:\\", **fields})


class KeptSession(GuestSession):
    """One whose connection can be cut."""

    connection: socket.socket

    async def connect(self, *, limit_s: float) -> Greeting:
        self.connection = self.vm.connect_agent()
        greeting = await self.client.connect(self.connection, timeout_s=limit_s)
        self.guest.take_greeting(greeting)
        self.tasks = greeting.tasks
        return greeting


class Silo:
    """A container in a clone, up to where its main program can be started."""

    def __init__(self, session: KeptSession, scratch: Path) -> None:
        self.session = session
        self.guest = session.guest
        self.scratch = scratch
        self.main = GuestProgram("")

    def lose(self) -> None:
        """The connection, as a daemon that is killed does."""
        self.session.connection.shutdown(socket.SHUT_RDWR)

    async def start(self, plan: LaunchPlan, *, no_flush: bool = False) -> int:
        return await self.guest.start_main(MAIN, plan, no_flush=no_flush)

    async def execute(self, plan: LaunchPlan, *, name: str = "e1") -> tuple[str, str, int]:
        program = await self.guest.launch(name, MAIN, plan, wanted=(False, True, True))
        return await self.finish(program)

    async def finish(self, program: GuestProgram) -> tuple[str, str, int]:
        """(output, error, exit code) of a program that ends; released."""
        out, err = await asyncio.gather(*(read_stream(stream) for stream in (program.stdout, program.stderr)))
        code = (await program.wait()).code
        await self.guest.release(program)
        return out, err, code


async def read_stream(reader: Any) -> str:
    pieces = []
    while reader is not None and (piece := await reader.read()):
        pieces.append(piece)
    return b"".join(pieces).decode().replace("\r\n", "\n")


class Place:
    """What a daemon has for its VMs, in `folder`."""

    def __init__(self, folder: Path, guest_image: Path) -> None:
        self.folder = folder
        self.guest_image = guest_image
        self.images = ImageFiles(folder / "images")
        self.images.open()
        self.scratches = ScratchDisks(folder / "scratch", SCRATCH_BYTES)
        self.scratches.open()
        self.ranges = Ranges(17)
        self.seccomp = SeccompSource(folder / "seccomp", use_annotation=True)
        self._serial = 0

    def fresh(self, kind: str) -> Path:
        self._serial += 1
        place = self.folder / f"{kind}-{self._serial}"
        place.mkdir()
        return place

    async def image(self, layers: tuple[Path, ...]) -> ImageFile:
        return await self.images.ensure(layers, map_it=False)

    async def template(self, warm: Warm, image: Path, scratch: Path) -> Template:
        machine, files = build_guest(self.guest_image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)
        slots = {MAPPED: self.images.empty(MAPPED_BYTES), IMAGE: image}
        taken = await self.ranges.take()
        descriptor = open_disk(scratch, read_only=False)
        try:
            return await make_template(
                self.fresh("template"),
                dataclasses.replace(machine, slots=True),
                uid=taken.first_id,
                user_namespace=taken.namespace,
                files={**files, **slots},
                warm=warm,
                limit_s=BOOT_LIMIT_S,
                scratch=descriptor,
            )
        finally:
            os.close(descriptor)
            self.ranges.give_back(taken.first_id)

    async def cold_template(self) -> Template:
        scratch = self.fresh("blank") / "scratch.img"
        self.scratches.create(scratch)
        return await self.template(warm_linux, self.images.empty(IMAGE_BYTES), scratch)

    async def warm_template(self, plan: ContainerPlan) -> tuple[Template, Path]:
        """And the scratch that its clones begin with."""
        wanted = find_ahead(plan)
        assert wanted is not None
        scratch = self.fresh("warm") / "scratch.img"
        self.scratches.create(scratch)
        image = await self.image(plan.rootfs.layers)
        return await self.template(warm_ahead(wanted, self.seccomp, mapped=False), image.path, scratch), scratch

    @asynccontextmanager
    async def clone(self, template: Template, plan: ContainerPlan, scratch: Path) -> AsyncIterator[KeptSession]:
        """Nothing of it is left afterwards but its disk."""
        image = await self.image(plan.rootfs.layers)
        taken = await self.ranges.take()
        descriptor = open_disk(scratch, read_only=False)
        try:
            vm = await start_clone(
                template,
                self.fresh("clone"),
                uid=taken.first_id,
                user_namespace=taken.namespace,
                scratch=descriptor,
                files={IMAGE: image.path},
            )
        finally:
            os.close(descriptor)
        session = KeptSession(vm)
        try:
            await session.connect(limit_s=30)
            if folders := folders_of(plan):
                await asyncio.to_thread(attach_folders, vm.pid, folders, taken.namespace)
                await session.mount([folders_mount()])
            yield session
        finally:
            await session.end()
            self.ranges.give_back(taken.first_id)

    @asynccontextmanager
    async def cold(self, template: Template, plan: ContainerPlan, scratch: Path | None = None) -> AsyncIterator[Silo]:
        if scratch is None:
            scratch = plan.directory / "scratch.img"
            self.scratches.create(scratch)
        async with self.clone(template, plan, scratch) as session:
            await session.reseed(plan.hostname, _MACHINE_ID)
            await session.mount(root_mounts(mapped=False, volatile=False))
            await session.write_files(dict(read_special_files(plan)))
            await own_prefix(session, plan)
            identity = await session.identity(plan.process.user, ())
            silo = Silo(session, scratch)
            silo.main = await begin_silo(session, plan, build_early_spec(plan, identity, self.seccomp.select(plan)))
            yield silo

    @asynccontextmanager
    async def warm(self, template: Template, plan: ContainerPlan, original: Path) -> AsyncIterator[Silo]:
        scratch = plan.directory / "scratch.img"
        self.scratches.copy(original, scratch)
        async with self.clone(template, plan, scratch) as session:
            silo = Silo(session, scratch)
            silo.main = await dress_ahead(session, plan, machine_id=_MACHINE_ID)
            yield silo
