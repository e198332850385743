"""A real silod on roots and in a network namespace of its own, and the docker program pointed at it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from silo.host.cgroups import cgroup_parent
from silo.host.namespaces import CLONE_NEWNET, in_thread, join
from tests.support.probes import require, require_program, require_root

T = TypeVar("T")

READY_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 60


class Silod:
    """The daemon under test, in a network namespace of its own: a host has one silod."""

    def __init__(self, root: Path, settings: dict[str, str] | None = None) -> None:
        self.root = root
        self.settings = settings or {}
        self.data_root = root / "data"
        self.run_root = root / "run"
        self.socket = self.run_root / "silo.sock"
        self.log = root / "silod.log"
        self.network = root.name
        self.prefix: tuple[str, ...] = ()
        """Words of a program that starts the daemon, in a host that is different in some way."""
        self._process: subprocess.Popen[bytes] | None = None

    def within_network(self, *words: str) -> list[str]:
        """A command that runs where the daemon's ports are published."""
        return ["nsenter", f"--net=/run/netns/{self.network}", *words]

    def call_within_network(self, work: Callable[[], T]) -> T:
        """In a thread of its own, which is there."""

        def enter_and_work() -> T:
            with open(f"/run/netns/{self.network}") as namespace:
                join(namespace.fileno(), CLONE_NEWNET)
            return work()

        return in_thread(enter_and_work)

    def start(self) -> None:
        command = (sys.executable, "-m", "silo.daemon", "--data-root", str(self.data_root), "--run-root")
        environment = os.environ | {f"SILO_{name.upper()}": value for name, value in self.settings.items()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, *self.within_network(*command, str(self.run_root))],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"silod did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: silo\r\nConnection: close\r\n\r\n")
                return connection.recv(100).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    def kill(self) -> None:
        """As the kernel would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
            try:
                keeper.connect(str(self.run_root / "keeper.sock"))
            except OSError:
                return
            keeper.settimeout(10)
            with suppress(ConnectionError):  # a keeper with nothing to keep ends by itself
                keeper.send(b'{"op": "shutdown", "id": 1, "force": true}')
                keeper.recv(4096)


class Docker:
    """The docker program, pointed at the daemon under test."""

    def __init__(self, program: str, silod: Silod, configuration: Path) -> None:
        self.program = program
        self.silod = silod
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{silod.socket}",
            "DOCKER_CONFIG": str(configuration),
        }

    def try_(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command; whatever comes."""
        done = subprocess.run(
            [self.program, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def __call__(self, *words: str, stdin: bytes | None = None) -> str:
        """Run a command that must succeed; its output without the last newline."""
        done = self.try_(*words, stdin=stdin)
        assert done.returncode == 0, (
            f"docker {' '.join(words)} failed with {done.returncode}:\n{done.stderr}{done.stdout}"
        )
        return done.stdout.rstrip("\n")

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name))[0]

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """A command that goes on while the test does."""
        return subprocess.Popen(
            [self.program, *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )


@contextmanager
def running_silod(*, prefix: tuple[str, ...] = (), **settings: str) -> Iterator[Silod]:
    """A started daemon with settings (such as linux_pool="0"); everything of it is gone afterwards."""
    require_root()
    require_program("crun")
    require_program("ip", "iproute2")
    # A Unix socket's path is short, so pytest's own directory will not do.
    root = Path(tempfile.mkdtemp(prefix="silo-test-"))
    root.chmod(0o755)
    daemon = Silod(root, settings)
    daemon.prefix = prefix
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, root)
        subprocess.run(["ip", "netns", "add", daemon.network], check=True)
        undo.callback(subprocess.run, ["ip", "netns", "del", daemon.network], check=True)
        subprocess.run(daemon.within_network("ip", "link", "set", "lo", "up"), check=True)
        undo.callback(remove_cgroups, daemon.run_root)
        daemon.start()
        undo.callback(daemon.stop)
        yield daemon


def remove_cgroups(run_root: Path) -> None:
    """The empty groups that a daemon leaves for its next start."""
    name = cgroup_parent(run_root)
    for hierarchy in ("", "*/"):
        for parent in Path("/sys/fs/cgroup").glob(f"{hierarchy}{name}"):
            for group in sorted((parent, *(path for path in parent.rglob("*") if path.is_dir())), reverse=True):
                _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    """A process that was killed leaves its group a moment later."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def docker_program() -> str:
    """The real client's path, or a skip."""
    program = os.environ.get("SILO_DOCKER") or shutil.which("docker") or "/usr/local/bin/docker"
    require("the docker client", Path(program).exists(), f"no docker in PATH, no {program}, SILO_DOCKER is not set")
    return program


def docker_for(daemon: Silod) -> Docker:
    """A client with a configuration folder of its own."""
    configuration = daemon.root / "docker-config"
    configuration.mkdir(exist_ok=True)
    return Docker(docker_program(), daemon, configuration)
