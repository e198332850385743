"""A real API server on a Unix socket over the real engine, over fakes; and programs that are played by coroutines.

The played programs are the words of a container's or exec's command: `echo …`, `cat`, `exit N`, `sleep`, `both` (writes to both
streams), `fail KIND`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import posixpath
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from silo.api.server import ApiServer
from silo.engine.ports import ExecRequest, FileChange, ImageChange, Progress, PullRequest, RunningExec
from silo.errors import Conflict, NotFound, ProcessStartFailed
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.network import Endpoint, NetworkConfig, NetworkStatistics
from silo.model.platform import Isolation, Platform
from silo.model.runtime import ExecStreams, ProcessPlan, ProcessTable, Started, Statistics
from silo.windows.registry.looking import WindowsRegistry
from tests.unit.engine.fakes import Bench, FakeImages, FakeNetworks, FakePersonality, FakeRuntime, FakeStorage


class PlayedExec:
    """A RunningExec whose program is a coroutine over pipes (a socket pair for a terminal)."""

    def __init__(self, args: Sequence[str], tty: bool, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.pid = 77
        self.signals: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self._mine: dict[int, int] = {}
        self._terminal: socket.socket | None = None
        if tty:
            near, far = socket.socketpair()
            self.streams = ExecStreams(terminal=near.detach())
            self._terminal = far.dup()
            terminal = far.detach()
            self._mine = {0: terminal, 1: terminal}
        else:
            given: dict[str, int] = {}
            for number, name, wanted in ((0, "stdin", stdin), (1, "stdout", stdout), (2, "stderr", stderr)):
                if wanted:
                    reader, writer = os.pipe()
                    given[name], self._mine[number] = (writer, reader) if number == 0 else (reader, writer)
            self.streams = ExecStreams(**given)
        self._task = asyncio.create_task(self._play(list(args)))

    async def _play(self, args: list[str]) -> int:
        code = await asyncio.to_thread(self._run, args)
        for fd in set(self._mine.values()):
            os.close(fd)
        return code

    def _run(self, args: list[str]) -> int:
        match args:
            case ["echo", *words]:
                os.write(self._mine[1], " ".join(words).encode() + b"\n")
            case ["both"]:
                os.write(self._mine[1], b"out\n")
                os.write(self._mine[2], b"err\n")
            case ["cat"]:
                while data := os.read(self._mine[0], 65536):
                    os.write(self._mine[1], data)
            case ["exit", code]:
                return int(code)
        return 0

    def hang_up(self) -> None:
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                self._terminal.shutdown(socket.SHUT_RDWR)

    async def wait(self) -> int:
        return await asyncio.shield(self._task)

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def signal(self, number: int) -> None:
        self.signals.append(number)


class PlayRuntime(FakeRuntime):
    """Containers whose main programs are played."""

    def __init__(self, isolation: Isolation = Isolation.PROCESS) -> None:
        super().__init__(isolation)
        self.stdin: dict[str, int] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.sizes: list[tuple[int, int]] = []
        self.execs: list[PlayedExec] = []
        self._readers: dict[str, int] = {}

    async def start(self, container_id: str) -> Started:
        plan = self.plans[container_id]
        if plan.process.args[:1] == ("fail",):
            words = {"not_found": "executable file not found in $PATH", "permission": "permission denied"}
            kind = plan.process.args[1]
            raise ProcessStartFailed(f"exec: {words[kind]}", kind=kind)  # type: ignore[arg-type]
        if plan.open_stdin:
            reader, self.stdin[container_id] = os.pipe()
            self._readers[container_id] = reader
        started = await super().start(container_id)
        self.tasks[container_id] = asyncio.create_task(self._play(container_id, list(plan.process.args)))
        return started

    async def _play(self, container_id: str, args: list[str]) -> None:
        await asyncio.sleep(0.01)
        code = 0
        match args:
            case ["echo", *words]:
                self.write(container_id, " ".join(words).encode() + b"\n", time_ns=1_700_000_000_000_000_001)
            case ["both"]:
                self.write(container_id, b"out\n")
                self.write(container_id, b"err\n", stream=2)
            case ["cat"]:
                while data := await asyncio.to_thread(os.read, self._readers[container_id], 65536):
                    self.write(container_id, data)
            case ["exit", text]:
                code = int(text)
            case ["sleep"]:
                return
        if container_id in self.running:
            self.end(container_id, code)

    async def open_stdin(self, container_id: str) -> int:
        return os.dup(self.stdin[container_id])

    async def close_stdin(self, container_id: str) -> None:
        os.close(self.stdin.pop(container_id))

    def end_inputs(self) -> None:
        """Lets the threads of played programs end."""
        for fd in self.stdin.values():
            os.close(fd)
        self.stdin.clear()
        for played in self.execs:
            played.hang_up()

    async def resize(self, container_id: str, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def update(self, container_id: str, resources: Any) -> None: ...
    async def statistics(self, container_id: str) -> Statistics:
        return Statistics(cpu_total_ns=5_000_000, memory_bytes=4096 * 100, memory_limit_bytes=1 << 30, pids=1)

    async def processes(self, container_id: str, ps_args: str) -> ProcessTable:
        return ProcessTable(titles=("PID", "CMD"), rows=(("4242", " ".join(self.plans[container_id].process.args)),))

    async def exec(self, container_id: str, program: Any, *, stdin: bool, stdout: bool, stderr: bool) -> RunningExec:
        if program.args[:1] == ("missing",):
            raise ProcessStartFailed('exec: "missing": executable file not found in $PATH', kind="not_found")
        played = PlayedExec(program.args, program.tty, stdin=stdin, stdout=stdout, stderr=stderr)
        self.execs.append(played)
        return played

    def root_path(self, container_id: str) -> Path | None:
        return Path("/")


class PlayPersonality(FakePersonality):
    def map_path(self, path: str, *, working_dir: str = "") -> str:
        return posixpath.normpath(path)

    def plan_exec(self, config: Any, image: Image, request: ExecRequest, *, hostname: str) -> ProcessPlan:
        return ProcessPlan(args=request.args, tty=request.tty)

    def plan_main(self, config: Any, image: Image, *, hostname: str, container_id: str) -> tuple[ProcessPlan, None]:
        return ProcessPlan(args=config.cmd or image.config.cmd, tty=config.tty), None

    def describe_command(self, config: Any, image: Image) -> tuple[str, tuple[str, ...]]:
        words = config.cmd or image.config.cmd
        return words[0], tuple(words[1:])


class PlayImages(FakeImages):
    def __init__(self, config: ImageConfig | None = None) -> None:
        super().__init__(config)
        self.received = b""
        self.pulled: list[PullRequest] = []
        self.image = Image(
            id="sha256:" + "1" * 64,
            platform=Platform(os="linux", architecture="amd64"),
            config=self.image.config,
            created="2024-01-01T00:00:00Z",
            tags=("bb:latest",),
            size_bytes=1234567,
            layers=("sha256:" + "2" * 64,),
            history=(HistoryEntry(created="2024-01-01T00:00:00Z", created_by="ADD rootfs", size_bytes=1234567),),
        )

    def find(self, reference: str, *, platform: str = "") -> Image | None:
        return self.image if reference in ("bb", "bb:latest", self.image.id) else None

    async def pull(self, request: PullRequest, progress: Progress) -> Image:
        self.pulled.append(request)
        progress("aaaaaaaaaaaa", "Pulling fs layer", 0, 0)
        progress("aaaaaaaaaaaa", "Downloading", 50, 100)
        await asyncio.sleep(0)
        if request.reference.startswith("missing"):
            raise NotFound(f"manifest for {request.reference} not found")
        progress("aaaaaaaaaaaa", "Pull complete", 0, 0)
        return self.image

    async def push(self, request: PullRequest, progress: Progress) -> str:
        self.pulled.append(request)
        return "sha256:" + "3" * 64

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress, *, base_layers: int | None = None
    ) -> tuple[Image, ...]:
        self.base_layers = base_layers
        async for chunk in chunks:
            self.received += chunk
        return (self.image,)

    async def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        for reference in references:
            self.get(reference)
        yield b"tar of "
        yield ",".join(references).encode()

    async def import_rootfs(self, chunks: AsyncIterator[bytes], **options: Any) -> Image:
        async for chunk in chunks:
            self.received += chunk
        self.options = options
        return self.image

    async def import_layout(self, path: Path, *, reference: str) -> Image:
        return self.image

    async def commit(self, base: Image, layer: Any, **options: Any) -> Image:
        self.options = options
        return self.image

    def tag(self, reference: str, new_reference: str) -> None:
        self.tagged = (reference, new_reference)

    def remove(self, reference: str, *, force: bool, in_use: Any) -> tuple[ImageChange, ...]:
        if self.image.id in in_use and not force:
            raise Conflict("image is being used")
        return (ImageChange(action="untagged", subject=reference), ImageChange(action="deleted", subject=self.image.id))

    def disk_usage_bytes(self) -> int:
        return 1234567


class PlayNetworks(FakeNetworks):
    def __init__(self) -> None:
        super().__init__()
        self.known = {
            "bridge": NetworkConfig(
                id="b" * 64, name="bridge", subnet="172.17.0.0/16", gateway="172.17.0.1", created="2024-01-01T00:00:00Z"
            ),
            "host": NetworkConfig(id="c" * 64, name="host", driver="host", created="2024-01-01T00:00:00Z"),
            "none": NetworkConfig(id="d" * 64, name="none", driver="none", created="2024-01-01T00:00:00Z"),
        }

    def all(self) -> tuple[NetworkConfig, ...]:
        return tuple(self.known.values())

    async def create(self, config: NetworkConfig) -> NetworkConfig:
        self.known[config.name] = config
        return config

    async def remove(self, reference: str) -> NetworkConfig:
        return self.known.pop(self.get(reference).name)

    def report(self) -> dict[str, str]:
        return {"firewall": "fake"}

    async def connect(self, container_id: str, sandbox: Any, requests: Any, *, dns_names: Any) -> Any:
        return tuple(
            Endpoint(
                network_id=request.network,
                network_name=self.get(request.network).name,
                endpoint_id="e" * 64,
                ipv4_address=f"172.17.0.{number + 2}",
                prefix_length=16,
                gateway="172.17.0.1",
                mac_address=request.mac_address or "02:42:ac:11:00:02",
                interface=f"eth{number}",
                host_interface="veth1",
                dns_names=tuple(dns_names),
            )
            for number, request in enumerate(requests)
        )

    async def disconnect(self, container_id: str, network_id: str, **options: Any) -> None: ...
    def rename(self, container_id: str, dns_names: Sequence[str]) -> tuple[()]:
        return ()

    async def publish(self, container_id: str, bindings: Any, endpoints: Any) -> Any:
        return tuple(
            type(b)(**{**{f: getattr(b, f) for f in b.__struct_fields__}, "host_port": b.host_port or 32768})
            for b in bindings
        )

    async def statistics(self, container_id: str) -> tuple[NetworkStatistics, ...]:
        return (NetworkStatistics(interface="eth0", rx_bytes=10, tx_bytes=20),)


class PlayStorage(FakeStorage):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: list[tuple[str, bytes]] = []

    @asynccontextmanager
    async def mounted(self, rootfs: Any, **options: Any) -> AsyncIterator[Path]:
        yield Path("/")

    async def changes(self, container_id: str, image: Image) -> tuple[FileChange, ...]:
        return (FileChange(kind=0, path="/etc"), FileChange(kind=1, path="/etc/new"))

    async def layer_tar(self, container_id: str, image: Image) -> AsyncIterator[bytes]:
        yield b"layer"

    async def export_tar(self, root: Path) -> AsyncIterator[bytes]:
        yield b"rootfs"

    async def stat_archive(self, root: Path, path: str) -> dict[str, object]:
        if "absent" in path:
            raise NotFound(f"Could not find the file {path} in container")
        return {"name": "hosts", "size": 5, "mode": 420, "mtime": "2024-01-01T00:00:00Z", "linkTarget": ""}

    async def read_archive(self, root: Path, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"archive"

        return await self.stat_archive(root, path), chunks()

    async def write_archive(self, root: Path, path: str, chunks: AsyncIterator[bytes], **options: Any) -> None:
        self.written.append((path, b"".join([chunk async for chunk in chunks])))

    def volume_size_bytes(self, name: str) -> int:
        return 11


class PlayBase:
    """A source of the Windows base."""

    def build(self, progress: Any, *, refresh: bool) -> Path:
        progress("unpacking", 0.5)
        return Path("/nowhere")


class ApiBench(Bench):
    """`async with ApiBench().serving() as bench:`; `bench.socket_path` is where it listens."""

    def restart_daemon(self) -> None:
        self.storage = PlayStorage(self.root / "containers")
        self.storage.root.mkdir(exist_ok=True)
        super().restart_daemon()
        parts = self.engine._parts
        self.runtime = PlayRuntime()
        self.vm_runtime = PlayRuntime(Isolation.HYPERV)
        self.networks = PlayNetworks()
        self.images = PlayImages(self.image)
        changed = {
            "runtimes": {runtime.isolation: runtime for runtime in (self.runtime, self.vm_runtime)},
            "networks": self.networks,
            "images": self.images,
            "personalities": dict.fromkeys(parts.personalities, PlayPersonality()),
        }
        from silo.engine.engine import Engine

        self.engine = Engine(
            type(parts)(**{**{name: getattr(parts, name) for name in parts.__dataclass_fields__}, **changed}),
            self.documents,
            daemon_id="d",
            base=PlayBase(),
            vm_image=self.vm_images,
            registry=WindowsRegistry(),
            login=self._login,
        )
        self.logins: list[tuple[str, str, str]] = []

    async def _login(self, username: str, password: str, server: str) -> str:
        self.logins.append((username, password, server))
        return "Login Succeeded"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ApiBench]:
        await self.engine.open()
        listener = socket.socket(socket.AF_UNIX)
        self.socket_path = self.root / "api.sock"
        listener.bind(str(self.socket_path))
        listener.listen(64)
        self.server = ApiServer(self.engine, log=logging.getLogger("test.api"))
        serving = asyncio.create_task(self.server.serve(listener))
        await asyncio.sleep(0)
        try:
            yield self
        finally:
            for container_id in tuple(self.runtime.running):
                await self.runtime.signal(container_id, signal.SIGKILL)
            self.runtime.end_inputs()
            await self.server.close()
            await serving
            await self.engine.close()


async def _main(path: str) -> None:
    """Serve by hand, for a look with a real client: python -m tests.unit.api.bench /tmp/x.sock"""
    bench = ApiBench()
    async with bench.serving():
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to(bench.socket_path)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    import uvloop

    logging.basicConfig(level="INFO")
    uvloop.run(_main(sys.argv[1]))
