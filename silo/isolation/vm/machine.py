"""A running VM as the daemon holds it: QEMU in its jail, its monitor, the way to its agent, the last words of its console.

DIRECTORY/
  monitor.sock   QMP; QEMU listens, so a daemon that comes again finds it
  agent.sock     the guest agent's port, likewise

What QEMU itself complains of is kept in memory: see open_log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from silo.errors import HostError, SiloError, Unavailable
from silo.host.run import start_detached
from silo.isolation.slots import RANGE_SIZE
from silo.isolation.vm.accelerator import kvm_group
from silo.isolation.vm.command import Accelerator, Descriptors, Machine, Role, build_qemu
from silo.isolation.vm.jail import Jail, build_jail
from silo.isolation.vm.process import Process, child_of, kill_tree
from silo.isolation.vm.qmp import EventListener, QmpClient

CONSOLE_BYTES = 16384
LOG_BYTES = 65536
START_LIMIT_S = 20.0
# what a firmware clears the screen with
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[@-Z^-~])")
_QUIT_LIMIT_S = 2.0


class Console:
    """The newest output of a guest's console. A guest may write without end: what is old is forgotten, once `on_output` got it."""

    def __init__(self, connection: socket.socket, on_output: Callable[[bytes], None] = lambda _: None) -> None:
        connection.setblocking(False)
        self._on_output = on_output
        self._socket = connection
        self._untrusted_text = bytearray()
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            return
        self._untrusted_text += data
        self._on_output(data)
        del self._untrusted_text[:-CONSOLE_BYTES]

    def last_lines(self, count: int = 40) -> str:
        """For an error's details: printable, so that a guest cannot speak to the reader's terminal."""
        text = _ESCAPES.sub("", self._untrusted_text.decode(errors="replace").replace("\r", ""))
        lines = ["".join(sign for sign in line if sign.isprintable()) for line in text.split("\n")]
        return "\n".join([line for line in lines if line.strip()][-count:])

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


class VirtualMachine:
    """Made by `start_machine`. It runs until it is ended, whatever becomes of the daemon."""

    def __init__(self, directory: Path, pid: int, monitor: QmpClient, console: Console) -> None:
        self.directory = directory
        self.pid = pid
        self.process = Process(pid)
        self.pid_started = self.process.started
        self.monitor = monitor
        self.console = console

    @property
    def alive(self) -> bool:
        return self.process.is_alive

    def connect_agent(self) -> socket.socket:
        """The host's end of the agent's port; one connection at a time. Raises Unavailable when QEMU is gone."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            at_directory(self.directory, "agent.sock", connection.connect)
        except OSError as error:
            connection.close()
            raise Unavailable(
                "the virtual machine has ended", details=self.console.last_lines() or str(error)
            ) from error
        connection.setblocking(False)
        return connection

    async def end(self) -> None:
        """Nothing is left of it when this returns. Idempotent."""
        with contextlib.suppress(SiloError, TimeoutError):
            await self.monitor.execute("quit", limit_s=_QUIT_LIMIT_S)
            await self.process.until_dead(_QUIT_LIMIT_S)
        await self.process.kill()
        self.close()
        for name in ("monitor.sock", "agent.sock"):
            (self.directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it; it runs on."""
        self.monitor.close()
        self.console.close()


async def adopt_machine(directory: Path, pid: int, pid_started: int) -> VirtualMachine:
    """One that an earlier daemon started; its console went with that one. Raises Unavailable when it has ended."""
    if not pid or not Process(pid, pid_started).is_alive:
        raise Unavailable("the virtual machine has ended")
    connection = socket.socket(socket.AF_UNIX)
    try:
        at_directory(directory, "monitor.sock", connection.connect)
        client = await QmpClient.connect(connection)
    except OSError as error:
        connection.close()
        raise Unavailable("the virtual machine has ended", details=str(error)) from error
    ours, theirs = socket.socketpair()
    theirs.close()
    return VirtualMachine(directory, pid, client, Console(ours))


async def start_machine(
    directory: Path,
    machine: Machine,
    role: Role,
    *,
    uid: int,
    files: Mapping[str, Path],
    memory: int = -1,
    scratch: int = -1,
    user_namespace: int = -1,
    entry_files: Sequence[str] = (),
    on_event: EventListener | None = None,
) -> VirtualMachine:
    """Start QEMU in `directory`, which exists, and speak to its monitor. `uid`, `files` and `user_namespace` are the jail's.

    `entry_files`: what is written to enter its cgroups.

    A template or a cold machine waits for `cont`, a clone for its state. Raises ToolMissing, HostError with QEMU's own
    complaint, Unavailable; nothing runs then.
    """
    with contextlib.ExitStack() as made:
        monitor, agent = (made.enter_context(listen_at(directory, name)) for name in ("monitor.sock", "agent.sock"))
        console, console_end = (made.enter_context(end) for end in socket.socketpair())
        descriptors = Descriptors(monitor.fileno(), agent.fileno(), console_end.fileno(), memory, scratch)
        group = kvm_group() if machine.accelerator is Accelerator.KVM else None
        if group is not None and user_namespace >= 0:
            group = RANGE_SIZE
        jail = Jail(uid=uid, files=files, kvm_group=group, user_namespace=user_namespace)
        argv = (*enter_groups(entry_files), *build_jail(jail, build_qemu(machine, descriptors, role)))
        passed = [*descriptors.passed(), *([user_namespace] if user_namespace >= 0 else [])]
        log = open_log()
        made.callback(os.close, log)
        # vfork and exec of a program: a few milliseconds, and not the loop's
        parent = await asyncio.to_thread(start_detached, argv, log=log, pass_fds=passed)
        pid, client = await join_started(directory, parent, (monitor, agent, console_end), on_event, log)
        os.close(log)
        made.pop_all()
    return VirtualMachine(directory, pid, client, Console(console))


async def join_started(
    directory: Path, parent: int, passed: Iterable[socket.socket], on_event: EventListener | None, log: int
) -> tuple[int, QmpClient]:
    """The pid and the monitor of the QEMU that bubblewrap, `parent`, has just started; it is killed when this fails.

    `passed` are the ends that are QEMU's alone from now on, `log` is from open_log. Raises HostError with QEMU's complaint.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        at_directory(directory, "monitor.sock", connection.connect)
        # from here on QEMU alone holds the listening ends: its death is the end of the connection
        for end in passed:
            end.close()
        client = await QmpClient.connect(connection, on_event, limit_s=START_LIMIT_S)
        return child_of(parent), client
    except BaseException as error:
        connection.close()
        kill_tree(parent)
        if isinstance(error, SiloError | OSError):
            details = _complaint(log) or str(error)
            raise HostError("QEMU could not be started", details=details) from error
        raise


def enter_groups(files: Sequence[str]) -> tuple[str, ...]:
    """A shell that moves itself and becomes the program: moving another process takes the kernel ten times as long."""
    if not files:
        return ()
    script = 'for file in $1; do echo 0 >"$file" || exit 1; done; shift; exec "$@"'
    return ("/bin/sh", "-c", script, "sh", " ".join(files))


def listen_at(directory: Path, name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    (directory / name).unlink(missing_ok=True)
    at_directory(directory, name, listener.bind)
    (directory / name).chmod(0o600)
    listener.listen(1)
    return listener


def at_directory(directory: Path, name: str, call: Callable[[str], object]) -> None:
    """bind or connect by a path through a descriptor, because socket addresses are at most 107 bytes long."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def open_log() -> int:
    """A descriptor for QEMU's complaints, to be read as /proc/PID/fd/2 while it runs; the caller closes it.

    A guest can make QEMU complain without end, and the daemon may be dead meanwhile: so no file that grows. What does not fit into
    this one is refused by the kernel, which QEMU takes no notice of.
    """
    descriptor = os.memfd_create("silo-qemu-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, LOG_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor


def _complaint(log: int) -> str:
    return os.pread(log, LOG_BYTES, 0).rstrip(b"\0").decode(errors="replace")[-2000:].strip()
