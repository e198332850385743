"""A silo without an engine: namespaces, an overlay over the Windows base, our launcher as its first process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from silo.errors import Unavailable
from silo.host.run import run
from silo.isolation.launcher_messages import RunRequest
from silo.isolation.process.launcher import LauncherClient
from silo.windows.base.build import build_base
from silo.windows.base.environment import DRIVE_C, PREFIX, UNIX_ENVIRONMENT
from silo.windows.launcher.build import COMPILER, PACKAGE, launcher_files
from tests.support.probes import require_program, require_root

DATA_ROOT = Path(os.environ.get("SILO_TEST_BASE_ROOT", "/var/cache/silo-tests"))
PROGRAMS = Path(__file__).parent / "programs"
Answer = TypeVar("Answer")

# $0 is the silo's directory, $1 the base; run as pid 1 of new namespaces, with descriptors 0-4 as crun would pass them
_MAKE_ROOT = """
set -e
mount --make-rprivate /
root=$0/merged
mount -t overlay overlay -o "lowerdir=$1,upperdir=$0/upper,workdir=$0/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
hostname launcher-test
exec chroot "$root" /silo/start
"""


class Silo:
    """A running silo; `started_s` is when its first process was."""

    def __init__(self, directory: Path, base: Path, *, terminal: bool = False) -> None:
        self.directory = directory
        self.upper_prefix = directory / "upper" / PREFIX.lstrip("/")
        self.socket_path = directory / "launcher.sock"
        self.client = LauncherClient(self.socket_path)
        for name in ("work", "merged"):
            (directory / name).mkdir(exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.socket_path))
        listener.listen(64)
        self.status, status_write = os.pipe()
        self.terminal = -1
        if terminal:
            self.terminal, slave = os.openpty()
            theirs = [slave, os.dup(slave), os.dup(slave)]
            self.output = self.error = self.input = -1
        else:
            read, self.input = os.pipe()
            self.output, write = os.pipe()
            self.error, write_error = os.pipe()
            theirs = [read, write, write_error]
        passed = [*theirs, listener.detach(), status_write]
        high = [_move_up(descriptor) for descriptor in passed]
        redirections = " ".join(f"{place}<&{descriptor}" for place, descriptor in enumerate(high))
        closings = " ".join(f"{descriptor}<&-" for descriptor in high)
        self.started_s = time.monotonic()
        words = ("unshare", "-m", "-p", "-n", "-i", "-u", "-f", "--kill-child", "sh", "-c", _MAKE_ROOT, directory, base)
        self.process = subprocess.Popen(
            ("bash", "-c", f'exec "$@" {redirections} {closings}', "silo", *map(str, words)),
            env={**UNIX_ENVIRONMENT, "PATH": os.environ["PATH"]},
            pass_fds=high,
            start_new_session=True,
        )
        for descriptor in high:
            os.close(descriptor)

    def ask(self, request: Coroutine[Any, Any, Answer]) -> Answer:
        async def within() -> Answer:
            async with asyncio.timeout(60):
                return await request

        return asyncio.run(within())

    def ready(self) -> None:
        self.ask(self.client.ping(60))

    def run(
        self,
        command: str,
        *,
        input: bytes = b"",
        directory: str = "",
        environment: tuple[str, ...] = (),
        path: str = "",
    ) -> tuple[int, bytes, bytes]:
        """Exit code, output, error of a program run as `exec` does it."""
        request = RunRequest(command_line=command, directory=directory, environment=environment, path=path)
        streams = Streams()
        code = self.ask(self._run(request, streams, input))
        return code, *streams.collected()

    async def _run(self, request: RunRequest, streams: Streams, input: bytes) -> int:
        try:
            program = await self.client.run(request, streams.theirs)
        except BaseException:
            streams.close()
            raise
        streams.start(input)
        try:
            return await program.wait()
        finally:
            program.close()

    def status_code(self) -> int | None:
        data = os.read(self.status, 4)
        return struct.unpack("<I", data)[0] if data else None

    def first_pid(self) -> int:
        """The host's number of the container's first process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def inner_processes(self) -> dict[int, str]:
        """Host numbers and names of everything inside."""
        inside = Path(f"/proc/{self.first_pid()}/ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if (entry / "ns/pid").readlink() == inside:
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def wait(self, timeout_s: float = 20) -> int:
        return self.process.wait(timeout_s)

    def close(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            first = os.pidfd_open(self.first_pid())
            os.kill(self.first_pid(), signal.SIGKILL)
            select.select([first], [], [], 10)
            os.close(first)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for name in ("status", "input", "output", "error", "terminal"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)


def _move_up(descriptor: int) -> int:
    """A copy with a number that no redirection uses; the original is closed."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(descriptor)
    return moved


class Streams:
    """Three pipes: `theirs` for the program, the other ends served by threads."""

    def __init__(self) -> None:
        read, self._input = os.pipe()
        self._output, write = os.pipe()
        self._error, write_error = os.pipe()
        self.theirs = [read, write, write_error]
        self._pieces: tuple[list[bytes], list[bytes]] = ([], [])
        self._threads: list[threading.Thread] = []

    def start(self, input: bytes) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []
        for descriptor, pieces in ((self._output, self._pieces[0]), (self._error, self._pieces[1])):
            self._threads.append(threading.Thread(target=_collect, args=(descriptor, pieces)))
        self._threads.append(threading.Thread(target=_feed, args=(self._input, input)))
        for thread in self._threads:
            thread.start()

    def collected(self) -> tuple[bytes, bytes]:
        for thread in self._threads:
            thread.join()
        return b"".join(self._pieces[0]), b"".join(self._pieces[1])

    def close(self) -> None:
        for descriptor in (*self.theirs, self._input, self._output, self._error):
            os.close(descriptor)


def _collect(descriptor: int, pieces: list[bytes]) -> None:
    while data := os.read(descriptor, 65536):
        pieces.append(data)
    os.close(descriptor)


def _feed(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]
    os.close(descriptor)


@pytest.fixture(scope="session")
def base_tree() -> Path:
    require_root()
    for program, package in (("unshare", "util-linux"), ("chroot", "coreutils"), (COMPILER, PACKAGE)):
        require_program(program, package)
    try:
        tree = build_base(DATA_ROOT, keep_rootfs=True).rootfs
    except Unavailable as error:
        pytest.skip(f"needs internet: {error}")
    assert tree is not None
    return tree


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our test programs as .exe files."""
    directory = tmp_path_factory.mktemp("programs")
    for source in PROGRAMS.glob("*.c"):
        subsystem = "-mwindows" if source.stem == "window" else "-mconsole"
        run((COMPILER, "-Os", "-s", subsystem, "-o", directory / f"{source.stem}.exe", source, "-lntdll"))
    return directory


@pytest.fixture(scope="session")
def layer(base_tree: Path, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Launcher, start script and test programs (in C:\\t) as an upper layer to copy."""
    directory = tmp_path_factory.mktemp("layer")
    for target, source in launcher_files(tmp_path_factory.mktemp("launcher")).items():
        place = directory / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes())
        place.chmod(0o755)
    drive = directory / DRIVE_C.lstrip("/")
    (drive / "t").mkdir()
    for program in programs.iterdir():
        (drive / "t" / program.name).write_bytes(program.read_bytes())
    return directory


Make = Callable[..., Silo]


def _maker(base_tree: Path, layer: Path, factory: pytest.TempPathFactory) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(*, again: Path | None = None, terminal: bool = False) -> Silo:
            directory = again or factory.mktemp("silo")
            if again is None:
                run(("cp", "-a", layer, directory / "upper"))
            silo = Silo(directory, base_tree, terminal=terminal)
            stack.callback(silo.close)
            return silo

        yield make


@pytest.fixture
def make_silo(base_tree: Path, layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Silos of a test's own; `again` is the directory of one that has ended."""
    yield from _maker(base_tree, layer, tmp_path_factory)


@pytest.fixture(scope="session")
def silo(base_tree: Path, layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silo]:
    """One silo for all tests that leave it as it was."""
    for make in _maker(base_tree, layer, tmp_path_factory):
        made = make()
        made.ready()
        yield made
