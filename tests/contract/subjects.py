"""What the contract is about: one runtime with containers of one personality, behind words that are the same for all.

A subject makes plans whose main program is the one compiled from program.c (for Windows as a PE program), listens to the
runtime, and reads logs. A new isolation level is added in conftest.py and has to pass every test.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from silo.engine.ports import Runtime
from silo.model.container import Namespaces, Resources
from silo.model.ids import new_id
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.log import parse_records
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ExecStreams, ExitRecord, LaunchPlan, ProcessPlan, Rootfs

PATIENCE_S = 60.0


class Listener:
    """Remembers what the runtime told."""

    def __init__(self) -> None:
        self.exits: dict[str, list[ExitRecord]] = {}
        self.outputs: set[str] = set()
        self.out_of_memory: set[str] = set()
        self._changed = asyncio.Event()

    def on_exit(self, container_id: str, record: ExitRecord) -> None:
        self.exits.setdefault(container_id, []).append(record)
        self._changed.set()

    def on_output(self, container_id: str) -> None:
        self.outputs.add(container_id)
        self._changed.set()

    def on_out_of_memory(self, container_id: str) -> None:
        self.out_of_memory.add(container_id)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.2)


class Subject:
    """`words(verb, …)` as a program of this personality; everything else is common."""

    personality: PersonalityName
    parked = False
    """Containers are clones of templates in which they wait (plan.parked)."""

    def __init__(self, make_runtime: Callable[[], Runtime], data_root: Path, layers: tuple[Path, ...]) -> None:
        self._make_runtime = make_runtime
        self._data_root = data_root
        self._layers = layers
        self.runtime: Runtime
        self.listener: Listener

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Subject]:
        await self.connect()
        try:
            await self.runtime.recover([])
            yield self
        finally:
            await self.runtime.recover([])
            await self.runtime.close()

    async def connect(self) -> None:
        """A runtime as a daemon that comes up has it."""
        self.listener = Listener()
        self.runtime = self._make_runtime()
        await self.runtime.open(self.listener)

    def process(
        self, *words: str, tty: bool = False, env: tuple[str, ...] = ()
    ) -> tuple[ProcessPlan, LaunchPlan | None]:
        raise NotImplementedError

    def program(self, *words: str, tty: bool = False, env: tuple[str, ...] = ()) -> ProcessPlan | LaunchPlan:
        """As given to exec."""
        process, launch = self.process(*words, tty=tty, env=env)
        return launch or process

    def guest_path(self, name: str) -> str:
        """A file in a directory that every program may write, in the container's words."""
        raise NotImplementedError

    def port_path(self, name: str) -> str:
        """As `guest_path`, as the runtime's port has it: in the container's Linux root."""
        return self.guest_path(name)

    def mount_target(self, name: str) -> tuple[str, str]:
        """(the target of a planned mount, the same place in the container's words)."""
        raise NotImplementedError

    def plan(self, *words: str, tty: bool = False, env: tuple[str, ...] = (), **fields: Any) -> ContainerPlan:
        container_id = new_id()
        directory = self._data_root / "containers" / container_id
        for name in ("upper", "work"):
            (directory / name).mkdir(parents=True)
        process, launch = self.process(*words, tty=tty, env=env)
        plan = ContainerPlan(
            id=container_id,
            personality=self.personality,
            image_id="sha256:" + "0" * 64,
            rootfs=Rootfs(layers=self._layers, scratch=directory, volatile=True),
            process=process,
            launch=launch,
            directory=directory,
            hostname="contract",
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            parked=self.parked,
        )
        return msgspec.structs.replace(plan, **fields)

    def limited(self, *words: str, **limits: Any) -> ContainerPlan:
        return self.plan(*words, resources=Resources(**limits))

    def with_folder(self, folder: Path, *words: str, read_only: bool = False) -> ContainerPlan:
        target, _ = self.mount_target("shared")
        mount = PlannedMount(target=target, source=folder, kind=MountKind.BIND, read_only=read_only)
        return self.plan(*words, mounts=(mount,))

    def with_file(self, path: str, content: bytes) -> ContainerPlan:
        """The image has one more layer, with an executable file in it."""
        plan = self.plan()
        file = plan.directory / "layer" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        file.chmod(0o755)
        layers = (plan.directory / "layer", *plan.rootfs.layers)
        return msgspec.structs.replace(plan, rootfs=msgspec.structs.replace(plan.rootfs, layers=layers))

    async def read_scratch(self, plan: ContainerPlan, name: str) -> list[tuple[str, int]]:
        """Text and owner of the files of this name that the container has made, after its end."""
        if not self.runtime.keeps_files:
            found = list((plan.directory / "upper").rglob(name))
            return [(path.read_text(), path.stat().st_uid) for path in found]
        async with self.runtime.open_files(plan.id, plan.rootfs, ()) as files:
            data = b"".join([piece async for piece in files.layer()])
        with tarfile.open(fileobj=io.BytesIO(data)) as layer:
            members = [member for member in layer if member.isfile() and Path(member.name).name == name]
            return [(layer.extractfile(member).read().decode(), member.uid) for member in members]  # type: ignore[union-attr]

    @contextlib.asynccontextmanager
    async def started(self, plan: ContainerPlan) -> AsyncIterator[str]:
        """A container that has been started; released and deleted afterwards."""
        await self.runtime.prepare(plan)
        try:
            await self.runtime.start(plan.id)
            yield plan.id
        finally:
            await self.runtime.release(plan.id)
            shutil.rmtree(plan.directory, ignore_errors=True)

    async def run(self, plan: ContainerPlan) -> tuple[ExitRecord, str, str]:
        """To the end: (its record, standard output, standard error)."""
        async with self.started(plan) as container_id:
            record = await self.end(container_id)
            return record, self.output(plan), self.output(plan, stream=2)

    async def end(self, container_id: str) -> ExitRecord:
        await self.listener.until(lambda: container_id in self.listener.exits)
        return self.listener.exits[container_id][0]

    async def until_output(self, plan: ContainerPlan, text: str) -> None:
        await self.listener.until(lambda: text in self.output(plan))

    def output(self, plan: ContainerPlan, *, stream: int = 1) -> str:
        data = b""
        for name in ("log.1", "log"):
            with contextlib.suppress(FileNotFoundError):
                data += (plan.directory / name).read_bytes()
        text = b"".join(payload for number, _, payload, _ in parse_records(data) if number == stream)
        return text.decode().replace("\r\n", "\n")

    async def type(self, container_id: str, data: bytes) -> None:
        descriptor = await self.runtime.open_stdin(container_id)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


class LinuxSubject(Subject):
    personality = PersonalityName.LINUX

    def process(
        self, *words: str, tty: bool = False, env: tuple[str, ...] = ()
    ) -> tuple[ProcessPlan, LaunchPlan | None]:
        capabilities = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID")
        env = ("PATH=/bin", *env)
        return ProcessPlan(args=("/program", *words), env=env, tty=tty, capabilities=capabilities), None

    def guest_path(self, name: str) -> str:
        return f"/tmp/{name}"

    def mount_target(self, name: str) -> tuple[str, str]:
        return f"/mnt/{name}", f"/mnt/{name}"


class WindowsSubject(Subject):
    personality = PersonalityName.WINDOWS
    DRIVE = "/silo/prefix/drive_c"

    def __init__(
        self, make_runtime: Callable[[], Runtime], data_root: Path, layers: tuple[Path, ...], start: ProcessPlan
    ):
        super().__init__(make_runtime, data_root, layers)
        self._start = start

    def process(
        self, *words: str, tty: bool = False, env: tuple[str, ...] = ()
    ) -> tuple[ProcessPlan, LaunchPlan | None]:
        process = msgspec.structs.replace(self._start, tty=tty)
        line = " ".join(f'"{word}"' if " " in word or not word else word for word in ("C:\\program.exe", *words))
        return process, LaunchPlan(command_line=line, directory="C:\\", environment=env, tty=tty)

    def guest_path(self, name: str) -> str:
        return f"C:\\{name}"

    def port_path(self, name: str) -> str:
        return f"{self.DRIVE}/{name}"

    def mount_target(self, name: str) -> tuple[str, str]:
        return f"{self.DRIVE}/{name}", f"C:\\{name}"


async def collect(streams: ExecStreams) -> tuple[bytes, bytes]:
    """Everything an exec's program writes, until its streams end."""
    out, err = await asyncio.gather(
        read_to_end(streams.stdout if streams.stdout is not None else streams.terminal), read_to_end(streams.stderr)
    )
    return out, err


async def read_to_end(descriptor: int | None) -> bytes:
    if descriptor is None:
        return b""
    data = b""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                piece = os.read(descriptor, 65536)
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            except OSError:  # a terminal whose last user has gone
                return data
            if not piece:
                return data
            data += piece


def close_streams(streams: ExecStreams) -> None:
    for descriptor in (streams.stdin, streams.stdout, streams.stderr, streams.terminal):
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


__all__ = ["LinuxSubject", "Listener", "Subject", "WindowsSubject", "collect", "close_streams", "Namespaces"]
