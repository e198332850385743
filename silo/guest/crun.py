"""crun as the agent calls it: its words, its files, and what it leaves behind.

`run --detach` is create and start in one process: a second start of crun would cost as much again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any

from silo.guest.calls import Call

if TYPE_CHECKING:
    from silo.guest.task import Task

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_COMPLAINT_BYTES = 8192
# ignored here or by Python, and an ignored signal would stay so in the program
_DEFAULTS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ)


class Job:
    """A program on its way, mostly as a crun that runs: `theirs` are its 0, 1, 2, `passed` its 3, 4, …"""

    def __init__(self, call: Call, task: Task) -> None:
        self.call = call
        self.task = task
        self.pid = 0
        self.deadline = 0.0
        self.theirs: list[int] = []
        self.passed: list[int] = []
        self.pid_file = self.log_file = self.console_path = ""
        self.console: socket.socket | None = None

    def make_pipes(self, wanted: frozenset[str], owner: int) -> dict[str, int]:
        """Our ends by role; what is not wanted becomes /dev/null."""
        ours: dict[str, int] = {}
        for role in ("stdin", "stdout", "stderr"):
            if role not in wanted:
                self.theirs.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
                continue
            read, write = os.pipe2(os.O_CLOEXEC)
            mine, its = (write, read) if role == "stdin" else (read, write)
            # opening /dev/stdout by name needs it
            os.fchown(its, owner, -1)
            ours[role] = mine
            self.theirs.append(its)
        return ours

    def listen_for_terminal(self, path: str) -> None:
        self.console_path = path
        self.console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.console.bind(path)
        self.console.listen(1)
        self.console.setblocking(False)

    def accept_terminal(self) -> int:
        """-1 without one. crun has connected before it ends, so this never waits."""
        if self.console is None:
            return -1
        terminal = -1
        with contextlib.suppress(OSError):
            connection, _ = self.console.accept()
            with connection:
                connection.settimeout(5)
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
                terminal = descriptors[0] if descriptors else -1
        if terminal >= 0:
            os.set_inheritable(terminal, False)
        self.close()
        return terminal

    def close_theirs(self) -> None:
        for descriptor in (*self.theirs, *self.passed):
            os.close(descriptor)
        self.theirs, self.passed = [], []

    def close(self) -> None:
        self.close_theirs()
        if self.console is not None:
            self.console.close()
            self.console = None
            _unlink(self.console_path)


class Crun:
    def __init__(self, program: str, run_root: str, cgroup_manager: str) -> None:
        self._program = program
        self._run_root = run_root
        self._cgroup_manager = cgroup_manager
        self._identity: tuple[int, int] | None = None
        self._serial = 0
        for name in ("bundles", "crun", "work"):
            os.makedirs(f"{run_root}/{name}", 0o700, exist_ok=True)  # noqa: PTH103 - pathlib takes 10 ms to import

    def write_bundle(self, name: str, config: dict[str, Any]) -> str:
        bundle = f"{self._run_root}/bundles/{name}"
        os.makedirs(bundle, 0o700, exist_ok=True)  # noqa: PTH103
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(config, file)
        return bundle

    def run_words(self, bundle: str, passed: int) -> list[str]:
        """`passed`: how many descriptors from 3 on are the container's."""
        return ["run", "--detach", f"--bundle={bundle}", *([f"--preserve-fds={passed}"] if passed else [])]

    def socket_path(self) -> str:
        """For a socket that no container can see; short, because addresses are at most 107 bytes long."""
        self._serial += 1
        return f"{self._run_root}/work/{self._serial}.sock"

    def exec_words(self, name: str, process: dict[str, Any]) -> list[str]:
        file = f"{self._run_root}/work/{name}.json"
        with open(file, "w") as target:
            json.dump(process, target)
        return ["exec", "--detach", f"--process={file}"]

    def spawn(self, job: Job, words: list[str]) -> None:
        task = job.task
        self._serial += 1
        place = f"{self._run_root}/work/{self._serial}"
        job.pid_file, job.log_file = f"{place}.pid", f"{place}.log"
        argv = [self._program, f"--root={self._run_root}/crun", f"--log={job.log_file}"]
        argv += [f"--cgroup-manager={self._cgroup_manager}", *words, f"--pid-file={job.pid_file}"]
        if task.tty:
            job.listen_for_terminal(f"{place}.tty")
            argv.append(f"--console-socket={place}.tty")
            job.theirs = [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
        argv.append(task.container)
        # none is overwritten before it is copied: the loop and the port took the lowest numbers long ago
        descriptors = enumerate((*job.theirs, *job.passed))
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in descriptors]
        if self._identity is None:
            status = os.stat(self._program)  # noqa: PTH116
            self._identity = (status.st_dev, status.st_ino)
        # posix_spawn shares the agent's memory until the exec: no page tables are copied
        job.pid = os.posix_spawn(
            self._program, argv, _ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS
        )
        job.close_theirs()

    def collect(self, job: Job) -> tuple[str, int]:
        """(crun's complaints, the process that it made or 0); its files are removed."""
        words, pid = "", 0
        with contextlib.suppress(OSError), open(job.log_file, errors="replace") as file:
            words = file.read(_COMPLAINT_BYTES)
        with contextlib.suppress(OSError, ValueError), open(job.pid_file) as file:
            pid = int(file.read())
        for path in (job.log_file, job.pid_file, f"{self._run_root}/work/{job.task.name}.json"):
            _unlink(path)
        return words, pid

    def has_become_program(self, pid: int) -> bool:
        """The process is no crun any more (it may be gone: then its end is about to be seen)."""
        try:
            now = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116
        except OSError:
            return False
        return (now.st_dev, now.st_ino) != self._identity

    def forget(self, name: str, cgroup: str) -> None:
        """Remove what crun and the agent keep of a container that has ended; `crun delete` would be one more process."""
        for path in (f"{self._run_root}/crun/{name}", f"{self._run_root}/bundles/{name}"):
            with contextlib.suppress(OSError):
                _remove(path)
        if cgroup:
            with contextlib.suppress(OSError):
                self.signal_all(cgroup, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.rmdir(cgroup)  # noqa: PTH106

    def signal_all(self, cgroup: str, number: int) -> None:
        if number == signal.SIGKILL:
            with contextlib.suppress(FileNotFoundError), open(f"{cgroup}/cgroup.kill", "w") as file:
                file.write("1")
                return
        with open(f"{cgroup}/cgroup.procs") as file:
            pids = [int(line) for line in file]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def was_out_of_memory(self, cgroup: str) -> bool:
        if cgroup:
            with contextlib.suppress(OSError), open(f"{cgroup}/memory.events") as lines:
                for line in lines:
                    words = line.split()
                    if words[:1] == ["oom_kill"]:
                        return int(words[1]) > 0
        return False

    def set_size(self, terminal: int, rows: int, columns: int) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _remove(path: str) -> None:
    """A directory of crun's or ours (shutil takes 100 ms to import under emulation)."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
    os.rmdir(path)  # noqa: PTH106


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108
