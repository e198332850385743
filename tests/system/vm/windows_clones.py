"""Windows containers in clones of the real utility VM: cold in any clone, warm in those of a template whose silo runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from silo.isolation.vm.command import IMAGE, SCRATCH, Accelerator
from silo.isolation.vm.disks import copy_disk, open_disk, plug_disk
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.template import Template, make_template, start_clone
from silo.isolation.vm.windows import (
    ROOT,
    SILO,
    Dress,
    SiloOrder,
    begin_silo,
    build_root_mounts,
    dress_silo,
    reseed,
    warm_silo,
)
from silo.model.runtime import LaunchPlan, ScratchOwner
from silo.windows.base.environment import DRIVE_C, UNIX_ENVIRONMENT
from silo.windows.personality import START
from tests.system.vm.clones import BOOT_LIMIT_S, FIRST_UID, Session

MEMORY_BYTES = 512 << 20
SCRATCH_BYTES = 8 << 30
HOSTS = "/run/container/hosts"
PROGRAM = Path(__file__).resolve().parents[2] / "contract" / "program.c"


def make_image(folder: Path, layers: tuple[Path, ...], compiler: str) -> Path:
    """An EROFS image of the Windows base with C:\\program.exe."""
    root = folder / "windows"
    # as in an image: what the upper layers hold wins
    for layer in reversed(layers):
        subprocess.run(["cp", "-a", "--reflink=auto", f"{layer}/.", root], check=True)
    program = root / DRIVE_C.lstrip("/") / "program.exe"
    subprocess.run([compiler, "-O1", "-o", program, PROGRAM], check=True)
    image = folder / "windows.erofs"
    subprocess.run(["mkfs.erofs", image, root], check=True, capture_output=True)
    shutil.rmtree(root)
    image.chmod(0o644)
    return image


def make_scratch(path: Path) -> Path:
    with path.open("xb") as file:
        file.truncate(SCRATCH_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", path], check=True)
    return path


def build_order(*, tty: bool = False, owner: ScratchOwner | None = None) -> SiloOrder:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/etc/hosts", "type": "bind", "source": HOSTS, "options": ["bind"]},
    ]
    process = {
        "terminal": tty,
        "user": {"uid": owner.uid, "gid": owner.gid} if owner else {"uid": 0, "gid": 0},
        "args": [START],
        "env": [f"{name}={value}" for name, value in UNIX_ENVIRONMENT.items()],
        "cwd": DRIVE_C,
        **({"consoleSize": {"height": 25, "width": 80}} if tty else {}),
    }
    config = {
        "ociVersion": "1.0.0",
        "root": {"path": ROOT},
        "process": process,
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc")],
            "cgroupsPath": "/container",
        },
    }
    files = {HOSTS: "127.0.0.1 localhost\n"}
    return SiloOrder(config=config, mounts=build_root_mounts(), files=files, owner=owner)


def launch(*words: str, **fields: Any) -> LaunchPlan:
    """C:\\program.exe with these words."""
    line = " ".join(f'"{word}"' if " " in word else word for word in ("C:\\program.exe", *words))
    return LaunchPlan(**{"command_line": line, "directory": "C:\\", **fields})


class WindowsSession(Session):
    """A clone with a silo in it."""

    warm = False

    async def plug(self, image: Path, scratch: Path) -> None:
        for place, (path, serial) in enumerate(((image, IMAGE), (scratch, SCRATCH))):
            descriptor = open_disk(path, read_only=serial == IMAGE)
            try:
                await plug_disk(self.vm.monitor, descriptor, place=place, serial=serial, read_only=serial == IMAGE)
            finally:
                os.close(descriptor)

    async def begin(self, *, stdin: bool = False, **order: Any) -> None:
        """Cold, on disks that are there."""
        await reseed(self.guest, hostname="cold")
        self.main = await begin_silo(self.guest, SILO, build_order(**order), stdin=stdin)

    async def dress(self, **fields: Any) -> None:
        self.warm = True
        self.main = await dress_silo(self.guest, self.greeting, Dress(**{"hostname": "warm", **fields}))

    async def connect(self) -> Any:
        self.greeting = await super().connect()
        return self.greeting

    async def execute(self, plan: LaunchPlan, *, name: str = "e1") -> tuple[str, str, int]:
        program = await self.guest.launch(name, SILO, plan, wanted=(False, True, True))
        return await finish(self, program)


async def finish(session: Session, program: GuestProgram) -> tuple[str, str, int]:
    """(output, error, exit code) of a program that ends; released."""
    out, err = await asyncio.gather(*(read_stream(stream) for stream in (program.stdout, program.stderr)))
    code = (await program.wait()).code
    await session.guest.release(program)
    return out, err, code


async def read_stream(reader: Any) -> str:
    pieces = []
    while reader is not None and (piece := await reader.read()):
        pieces.append(piece)
    return b"".join(pieces).decode().replace("\r\n", "\n")


async def boot_template(guest_image: Path, folder: Path) -> Template:
    """Booted and saved; no container has run in it."""
    machine, files = build_guest(guest_image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)

    async def warm(vm: VirtualMachine) -> None:
        session = Session(vm)
        await session.connect()
        session.client.close()

    folder.mkdir()
    return await make_template(folder, machine, uid=FIRST_UID, files=files, warm=warm, limit_s=BOOT_LIMIT_S)


async def warm_template(guest_image: Path, folder: Path, image: Path) -> Template:
    """With a silo that runs."""
    machine, files = build_guest(guest_image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)
    machine = replace(machine, image=PurePosixPath("/guest/image.erofs"), scratch=True)

    async def warm(vm: VirtualMachine) -> None:
        session = Session(vm)
        await session.connect()
        await warm_silo(session.guest, build_order())
        session.client.close()

    folder.mkdir()
    return await make_template(
        folder,
        machine,
        uid=FIRST_UID,
        files={**files, "/guest/image.erofs": image},
        warm=warm,
        limit_s=BOOT_LIMIT_S,
        scratch=make_scratch(folder / "scratch.img"),
    )


@asynccontextmanager
async def windows_clone(template: Template, folder: Path, number: int = 1) -> AsyncIterator[WindowsSession]:
    """Of either template; a warm one gets its own copy of the scratch, which is left in the folder."""
    folder.mkdir(exist_ok=True)
    scratch = None
    if template.scratch is not None:
        scratch = folder / "scratch.img"
        copy_disk(template.scratch, scratch)
    vm = await start_clone(template, folder, uid=FIRST_UID + number, scratch=scratch)
    try:
        session = WindowsSession(vm)
        await session.connect()
        yield session
        with contextlib.suppress(Exception):
            session.client.close()
    finally:
        await vm.end()
