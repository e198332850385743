"""A template of the real utility VM with the real agent, its clones, and one busybox container in each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from silo.errors import SiloError
from silo.isolation.vm.agent import AgentClient, Event, ExitEvent
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.disks import open_disk, plug_disk
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.programs import Guest, GuestProgram
from silo.isolation.vm.template import Template, make_template, start_clone

FIRST_UID = 1_800_000_000
MEMORY_BYTES = 256 << 20
BOOT_LIMIT_S = 120
IMAGE, SCRATCH, ROOT = "/run/image", "/run/scratch", "/run/root"


def make_layer(folder: Path) -> Path:
    """An EROFS image of a busybox root."""
    root = folder / "root"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    for name in ("cat", "dd", "echo", "head", "reboot", "sh", "sleep", "uname", "yes"):
        (root / "bin" / name).symlink_to("busybox")
    image = folder / "layer.erofs"
    subprocess.run(["mkfs.erofs", "-Enoinline_data", image, root], check=True, capture_output=True)
    return image


class Session:
    """What a daemon has of one VM: its agent's client, and the programs."""

    def __init__(self, vm: VirtualMachine) -> None:
        self.vm = vm
        self.client = AgentClient(on_event=self._note)
        self.guest = Guest(self.client)

    def _note(self, event: Event) -> None:
        if isinstance(event, ExitEvent):
            self.guest.note_exit(event.task, event)

    async def connect(self) -> Any:
        self._connection = self.vm.connect_agent()
        greeting = await self.client.connect(self._connection, timeout_s=BOOT_LIMIT_S)
        self.guest.take_greeting(greeting)
        return greeting

    def lose(self) -> None:
        """The connection, as a daemon that is killed does."""
        self._connection.shutdown(socket.SHUT_RDWR)

    async def prepare(self, layer: Path) -> None:
        """Reseeded, with the container's root mounted."""
        seed = {"entropy": os.urandom(32).hex(), "hostname": "clone", "time_ns": time.time_ns()}
        await self.client.request("reseed", seed)
        descriptor = open_disk(layer, read_only=True)
        try:
            await plug_disk(self.vm.monitor, descriptor, place=0, serial="image", read_only=True)
        finally:
            os.close(descriptor)
        await self._mount_when_there({"type": "erofs", "source": "/dev/vda", "target": IMAGE, "options": ["ro"]})
        parts = [{"type": "tmpfs", "source": "t", "target": f"{SCRATCH}{name}"} for name in ("", "/upper", "/work")]
        await self._mount(*parts)
        await self.client.request("unmount", {"targets": [part["target"] for part in parts[1:]]})
        layers = f"lowerdir={IMAGE},upperdir={SCRATCH}/upper,workdir={SCRATCH}/work"
        await self._mount({"type": "overlay", "source": "root", "target": ROOT, "options": [layers]})

    async def _mount(self, *entries: dict[str, Any]) -> None:
        await self.client.request("mount", {"mounts": [{**entry, "mkdir": True} for entry in entries]})

    async def _mount_when_there(self, entry: dict[str, Any]) -> None:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(SiloError):
                    return await self._mount(entry)
                await asyncio.sleep(0.005)

    async def unplug(self) -> None:
        """Back to where a template is saved."""
        await self.client.request("unmount", {"targets": [ROOT, SCRATCH, IMAGE]})
        await self.vm.monitor.execute("device_del", id="disk-image")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(SiloError):
                    await self.vm.monitor.execute("blockdev-del", node_name="image")
                    break
                await asyncio.sleep(0.05)
        await self.vm.monitor.execute("remove-fd", fdset_id=1)

    async def start(self, script: str) -> GuestProgram:
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ]
        process = {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
        }
        spaces = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]
        config = {
            "ociVersion": "1.0.0",
            "root": {"path": ROOT},
            "process": process,
            "mounts": mounts,
            "linux": {"namespaces": spaces, "cgroupsPath": "/container"},
        }
        return await self.guest.run("container", config, stdin=False)

    async def run(self, script: str) -> tuple[str, int]:
        """To the end: (standard output, exit code)."""
        program = await self.start(script)
        output = await read_all(program)
        code = (await program.wait()).code
        await self.guest.release(program)
        return output, code


async def read_all(program: GuestProgram) -> str:
    assert program.stdout is not None
    pieces = []
    while piece := await program.stdout.read():
        pieces.append(piece)
    return b"".join(pieces).decode()


async def warm_template(image: Path, folder: Path, layer: Path) -> Template:
    """Booted, one container run in it, saved."""
    machine, files = build_guest(image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)

    async def warm(vm: VirtualMachine) -> None:
        session = Session(vm)
        await session.connect()
        await session.prepare(layer)
        assert await session.run("echo warm") == ("warm\n", 0)
        await session.unplug()
        await session.client.request("void_seed")
        session.client.close()

    folder.mkdir()
    return await make_template(folder, machine, uid=FIRST_UID, files=files, warm=warm, limit_s=BOOT_LIMIT_S)


@asynccontextmanager
async def cloned(template: Template, folder: Path, number: int = 1) -> AsyncIterator[Session]:
    """A clone with its agent connected; nothing of it is left afterwards."""
    folder.mkdir()
    vm = await start_clone(template, folder, uid=FIRST_UID + number)
    try:
        session = Session(vm)
        await session.connect()
        yield session
        session.client.close()
    finally:
        await vm.end()
