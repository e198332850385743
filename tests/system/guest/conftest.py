"""The real agent on this host, in namespaces of its own, with a socket pair in place of the virtio port.

`Port` does what QEMU does with it: it passes bytes on, holds the sender up when the receiver is slow, and throws away what the
guest writes while nobody holds the host's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from silo.guest import agent
from silo.isolation.vm.agent import AgentClient, Event, ExitEvent
from silo.isolation.vm.programs import Guest, GuestProgram
from silo.linux.entry.build import build_entry
from tests.support.probes import require_program, require_root

_BUFFER_BYTES = 65536
_PATIENCE_S = 60
_START = """
umount /sys/fs/cgroup/unified 2>/dev/null
# the agent writes /etc/machine-id, which a fresh machine need not have: it gets an /etc of its own
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work" /etc || exit 125
shift
exec "$@"
"""


class Port:
    """One end for the agent (`guest`), and by `plug` one at a time for a host."""

    def __init__(self) -> None:
        self._wire, self.guest = socket.socketpair()
        self._host: socket.socket | None = None
        self._wake_read, self._wake_write = os.pipe()
        self._lock = threading.Lock()
        self._to_host = self._to_guest = b""
        self._running = True
        self.passed = 0
        self._wire.setblocking(False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def plug(self) -> socket.socket:
        self.unplug()
        mine, its = socket.socketpair()
        mine.setblocking(False)
        with self._lock:
            self._host = mine
        os.write(self._wake_write, b"0")
        return its

    def unplug(self) -> None:
        """Wherever in a frame the bytes are just now."""
        with self._lock:
            if self._host is not None:
                self._host.close()
            self._host = None
            self._to_host = b""
        os.write(self._wake_write, b"0")

    def write_to_guest(self, data: bytes) -> None:
        """As a host that is not well."""
        with self._lock:
            self._to_guest += data
        os.write(self._wake_write, b"0")

    def _run(self) -> None:
        while self._running:
            with self._lock:
                host = self._host
            readers: list[Any] = [self._wake_read]
            writers: list[Any] = []
            if len(self._to_host) < _BUFFER_BYTES:
                readers.append(self._wire)
            if host is not None and len(self._to_guest) < _BUFFER_BYTES:
                readers.append(host)
            if host is not None and self._to_host:
                writers.append(host)
            if self._to_guest:
                writers.append(self._wire)
            with contextlib.suppress(OSError, ValueError):
                readable, writable, _ = select.select(readers, writers, [], 5)
                self._move(host, readable, writable)

    def _move(self, host: socket.socket | None, readable: list[Any], writable: list[Any]) -> None:
        if self._wake_read in readable:
            os.read(self._wake_read, 4096)
        with self._lock:
            if host is not self._host:
                return
            if host in readable and host is not None:
                data = host.recv(_BUFFER_BYTES)
                if not data:
                    self._host = None
                    self._to_host = b""
                self._to_guest += data
            if self._wire in readable:
                data = self._wire.recv(_BUFFER_BYTES)
                self.passed += len(data)
                if self._host is not None:
                    self._to_host += data
            if self._host is not None and self._host in writable and self._to_host:
                self._to_host = self._to_host[self._host.send(self._to_host) :]
            if self._wire in writable and self._to_guest:
                self._to_guest = self._to_guest[self._wire.send(self._to_guest) :]

    def close(self) -> None:
        self._running = False
        self.unplug()
        self._thread.join(10)
        self._wire.close()
        self.guest.close()
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)


class Machine:
    """A running agent and what a daemon would have of it."""

    def __init__(self, port: Port, process: subprocess.Popen[bytes], place: Path) -> None:
        self.port = port
        self.process = process
        self.place = place
        self.root = f"{place}/root"
        self.events: list[Event] = []
        self.lost: list[object] = []
        self.forget()

    def forget(self) -> None:
        """As a daemon that was killed."""
        self.client = AgentClient(on_event=self._note, on_lost=self.lost.append)
        self.guest = Guest(self.client)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ExitEvent):
            self.guest.note_exit(event.task, event)

    async def connect(self) -> Any:
        greeting = await self.client.connect(self.port.plug(), timeout_s=20)
        self.guest.take_greeting(greeting)
        return greeting

    async def prepare(self) -> None:
        """Connected, reseeded, with a root mounted."""
        await self.connect()
        await self.client.request("reseed", {"entropy": os.urandom(32).hex(), "hostname": "inside"})
        scratch = f"{self.place}/scratch"
        await self.client.request("mount", {"mounts": [{"type": "tmpfs", "source": "tmpfs", "target": scratch}]})
        for name in ("upper", "work"):
            # in the agent's mount namespace only
            await self.client.request(
                "mount",
                {"mounts": [{"type": "tmpfs", "source": "t", "target": f"{scratch}/{name}-x", "mkdir": True}]},
            )
        layers = f"lowerdir={self.place}/layer,upperdir={scratch}/upper-x/u,workdir={scratch}/upper-x/w,redirect_dir=on"
        for name in ("u", "w"):
            await self._make_directory(f"{scratch}/upper-x/{name}")
        overlay = {"type": "overlay", "source": "overlay", "target": self.root, "options": [layers]}
        await self.client.request("mount", {"mounts": [overlay]})

    async def _make_directory(self, path: str) -> None:
        """By a mount that is taken away again: the agent makes directories for nothing else."""
        await self.client.request(
            "mount", {"mounts": [{"type": "tmpfs", "target": path, "source": "t", "mkdir": True}]}
        )
        await self.client.request("unmount", {"targets": [path]})

    def process_of(self, *args: str, tty: bool = False, uid: int = 0) -> dict[str, Any]:
        return {
            "terminal": tty,
            "user": {"uid": uid, "gid": uid},
            "args": list(args),
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            **({"consoleSize": {"height": 24, "width": 80}} if tty else {}),
        }

    def config(self, *args: str, tty: bool = False) -> dict[str, Any]:
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ]
        return {
            "ociVersion": "1.0.0",
            "root": {"path": self.root},
            "process": self.process_of(*args, tty=tty),
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
        }

    async def run(self, *args: str, name: str = "c1", tty: bool = False, stdin: bool = False) -> GuestProgram:
        return await self.guest.run(name, self.config(*args, tty=tty), stdin=stdin)

    async def begin(
        self, *, name: str = "c1", tty: bool = False, stdin: bool = False, uid: int = 0, env: tuple[str, ...] = ()
    ) -> GuestProgram:
        """A container whose process waits."""
        config = self.config(tty=tty)
        config["process"] = {**self.process_of(tty=tty, uid=uid), "env": list(env)}
        return await self.guest.run(name, config, stdin=stdin, entry=True)

    async def shell(self, script: str, **options: Any) -> GuestProgram:
        return await self.run("/bin/sh", "-c", script, **options)


async def read_all(reader: Any) -> bytes:
    pieces = []
    while piece := await reader.read():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture(scope="session")
def layer() -> Iterator[Path]:
    require_root()
    busybox = require_program("busybox", "busybox-static")
    # not pytest's own place, which nobody else may enter
    root = Path(tempfile.mkdtemp(prefix="silo-guest-layer-"))
    root.chmod(0o755)
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys"):
        (root / name).mkdir()
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in "cat dd echo head id kill ls mkdir ps rm seq sh sleep stty test touch tr trap wc yes".split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "bin" / "broken").write_bytes(b"\x7fELF nothing")
    (root / "bin" / "broken").chmod(0o755)
    (root / "bin" / "plain").write_text("no program")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def entry() -> Iterator[Path]:
    require_program("gcc")
    with tempfile.TemporaryDirectory(prefix="silo-guest-entry-") as place:
        yield build_entry(Path(place))


@pytest.fixture
def machine(layer: Path, entry: Path) -> Iterator[Machine]:
    require_program("crun")
    place = Path(tempfile.mkdtemp(prefix="silo-guest-"))
    place.chmod(0o755)
    for name in ("root", "scratch", "layer"):
        (place / name).mkdir()
    (place / "layer").rmdir()
    (place / "layer").symlink_to(layer)
    for name in ("etc", "etc-work"):
        (place / name).mkdir()
    port = Port()
    number = port.guest.fileno()
    argv = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--uts",
        "--net",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        _START,
    ]
    argv += ["sh", str(place), sys.executable, "-I", "-S", agent.__file__, "--port-fd", str(number)]
    argv += ["--run-root", f"{place}/run", "--cgroup-manager", "disabled", "--crun", require_program("crun")]
    argv += ["--entry", str(entry)]
    process = subprocess.Popen(argv, pass_fds=[number], stdin=subprocess.DEVNULL)
    try:
        yield Machine(port, process, place)
    finally:
        process.kill()
        process.wait()
        port.close()
        shutil.rmtree(place, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Coroutine tests, bounded in time."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def body() -> None:
        async with asyncio.timeout(_PATIENCE_S):
            await test(**arguments)

    asyncio.run(body())
    return True
