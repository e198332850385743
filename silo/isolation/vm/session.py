"""The daemon's conversation with one VM's agent: its client, the guest's programs, and what becomes of a lost connection."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from silo.errors import SiloError
from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.answers import Event, ExitEvent, Greeting, PipeEvent, TaskState
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.programs import Guest
from silo.model.accounts import Identity, resolve_identity
from silo.model.guest_frames import ProtocolError

ROOT, SCRATCH, IMAGE, FOLDERS, FILES = "/run/root", "/run/scratch", "/run/image", "/run/folders", "/run/files"
"""Where a container's things are in the guest: its root, its disks, the host's folders, files that the daemon writes."""
_MAXIMUM_BASE64 = 350_000


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of read_files."""

    files: Annotated[tuple[Annotated[str, Meta(max_length=_MAXIMUM_BASE64)] | None, ...], Meta(max_length=16)]


class GuestSession:
    """`on_lost` is called on the event loop when the connection is gone, with the reason if there is one."""

    def __init__(self, vm: VirtualMachine, on_lost: Callable[[SiloError | None], None] = lambda _: None) -> None:
        self.vm = vm
        self.on_lost = on_lost
        self.serial = secrets.token_hex(4)
        """Tells this daemon's tasks from those of another one."""
        self.client = AgentClient(on_event=self._note, on_lost=lambda reason: self.on_lost(reason))
        self.guest = Guest(self.client)
        self.tasks: tuple[TaskState, ...] = ()
        """Untrusted, as all that it says: what the guest ran when it was last connected to."""
        self.carriers: set[asyncio.Task[None]] = set()
        """At work for mapped pipes (pipe_carrier.py); they end with the connection."""
        self._pipes: dict[int, Callable[[bytes], None]] = {}
        self._next_pipe = 0

    def _note(self, event: Event) -> None:
        if isinstance(event, ExitEvent):
            self.guest.note_exit(event.task, event)
        elif isinstance(event, PipeEvent) and event.link in self._pipes:
            self._pipes[event.link](bytes.fromhex(event.message))

    def new_pipe(self, hear: Callable[[bytes], None]) -> int:
        """The number of a link to the launcher; `hear` gets what the launcher says on it, untrusted."""
        self._next_pipe += 1
        self._pipes[self._next_pipe] = hear
        return self._next_pipe

    def drop_pipe(self, link: int) -> None:
        self._pipes.pop(link, None)

    async def connect(self, *, limit_s: float) -> Greeting:
        """Raises Unavailable, ProtocolError, GuestError."""
        greeting = await self.client.connect(self.vm.connect_agent(), timeout_s=limit_s)
        self.guest.take_greeting(greeting)
        self.tasks = greeting.tasks
        return greeting

    async def reseed(self, hostname: str, machine_id: str) -> None:
        """The clone becomes one of its own: entropy, clock, names. Before anything of a container's runs."""
        await self.client.request(
            "reseed",
            {
                "entropy": os.urandom(64).hex(),
                "time_ns": time.time_ns(),
                "hostname": hostname,
                "machine_id": machine_id,
            },
        )

    async def set_clock(self) -> None:
        await self.client.request("clock", {"time_ns": time.time_ns()})

    async def mount(self, entries: Sequence[Mapping[str, Any]]) -> None:
        await self.client.request("mount", {"mounts": [{"mkdir": True, **entry} for entry in entries]})

    async def unmount(self, targets: Sequence[str]) -> None:
        await self.client.request("unmount", {"targets": list(targets)})

    async def read_files(self, root: str, paths: Sequence[str]) -> tuple[bytes, ...]:
        """b"" for what is not there. Raises ProtocolError, and what the agent refuses."""
        untrusted = await self.client.request("read_files", {"root": root, "paths": list(paths)}, answer=Files)
        if len(untrusted.files) != len(paths):
            raise ProtocolError("the guest's agent read other files than it was asked for")
        try:
            return tuple(base64.b64decode(text or "", validate=True) for text in untrusted.files)
        except ValueError as error:
            raise ProtocolError("the guest's agent sent a file that is not base64") from error

    async def identity(self, user: str, groups: tuple[str, ...]) -> Identity:
        """Against the container's own files, as its programs have left them. Raises InvalidRequest, and as `read_files` does."""
        passwd, group = await self.read_files(ROOT, ["/etc/passwd", "/etc/group"])
        return resolve_identity(passwd.decode(errors="replace"), group.decode(errors="replace"), user, groups)

    async def write_files(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> None:
        entries = [
            {"path": path, "data": base64.b64encode(data).decode(), "mode": mode} for path, data in files.items()
        ]
        await self.client.request("write_files", {"files": entries})

    def _end_carriers(self) -> None:
        for carrier in tuple(self.carriers):
            carrier.cancel()

    def close(self) -> None:
        """Let go; the guest runs on."""
        self.on_lost = lambda _: None
        self._end_carriers()
        self.client.close()
        self.vm.close()

    async def end(self) -> None:
        """Nothing of the VM is left."""
        self.on_lost = lambda _: None
        self._end_carriers()
        self.client.close()
        await asyncio.shield(self.vm.end())


def root_mounts(*, mapped: bool, volatile: bool) -> list[dict[str, Any]]:
    """The mounts that make the container's root from the machine's slots (command.py). `volatile`: nothing need be synced."""
    image = {"source": "/dev/pmem1", "options": ["ro", "dax=always"]} if mapped else {"source": "/dev/vda"}
    layers = f"lowerdir={IMAGE},upperdir={SCRATCH}/upper,workdir={SCRATCH}/work,redirect_dir=on"
    return [
        {"type": "erofs", "target": IMAGE, "options": ["ro"], **image},
        {"type": "ext4", "source": "/dev/vdb", "target": SCRATCH, "options": ["noatime", "discard"]},
        {"type": "overlay", "source": "root", "target": ROOT, "options": [layers, *(["volatile"] if volatile else [])]},
    ]


def folders_mount() -> dict[str, Any]:
    # mmap: like no cache at all, but programs can map what they write
    options = ["trans=virtio", "version=9p2000.L", "msize=262144", "cache=mmap", "access=client"]
    return {"type": "9p", "source": "folders", "target": FOLDERS, "options": options}
