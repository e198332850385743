"""How the keeper makes processes: a *parked* child is in its cgroups already and waits to be told which program to become.

Parked children are forks of the keeper (a few hundred microseconds, no threads in the keeper), with every descriptor of the
keeper closed: a child that held another container's pipe would keep its input open. New user and network namespaces come
from a second, momentary child, because the parked one has to stay in the host's user namespace to become crun.

Standard library only (the keeper runs without site-packages).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_MAXIMUM_INSTRUCTION_BYTES = 65536

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def become_subreaper() -> None:
    """Containers, which crun leaves behind, become this process' children."""
    pr_set_child_subreaper = 36
    if _libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def make_namespaces(user: Sequence[int] | None, network: bool, inside: int = -1) -> list[int]:
    """Descriptors of a new user namespace (`user` is first host id, count) and of a network namespace that it owns.

    `inside`: a user namespace that exists and shall own the network namespace.
    """
    if user is None and not network:
        return []
    if inside >= 0:
        return [_network_inside(inside)] if network else []
    flags = (CLONE_NEWUSER if user is not None else 0) | (CLONE_NEWNET if network else 0) | signal.SIGCHLD
    number = _SYS_CLONE[os.uname().machine]
    pid = _libc.syscall(ctypes.c_long(number), ctypes.c_long(flags), None, None, None, None)
    if pid == 0:
        while True:
            signal.pause()
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"making namespaces: {os.strerror(error)}")
    descriptors: list[int] = []
    try:
        if user is not None:
            for leaf in ("uid_map", "gid_map"):
                with open(f"/proc/{pid}/{leaf}", "w") as file:
                    file.write(f"0 {user[0]} {user[1]}")
            descriptors.append(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        if network:
            descriptors.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return descriptors


def _network_inside(user_namespace: int) -> int:
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            done = _libc.setns(user_namespace, CLONE_NEWUSER) == 0 and _libc.unshare(CLONE_NEWNET) == 0
            os.write(ready_write, b"1" if done else str(-ctypes.get_errno()).encode())
            signal.pause()
        finally:
            os._exit(0)
    os.close(ready_write)
    try:
        answer = os.read(ready_read, 16)
        if answer != b"1":
            error = -int(answer or b"-5")
            raise OSError(error, f"making a network namespace: {os.strerror(error)}")
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Parked:
    """A child that waits inside its cgroups. `become` turns it into a program; its pid stays."""

    def __init__(self, entry_files: Sequence[str]) -> None:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _live_as_child(its.detach(), entry_files)
        its.close()
        self.pid = pid
        self._channel = mine

    def become(self, argv: Sequence[str], env: Sequence[str], cwd: str, descriptors: Sequence[int]) -> None:
        """Execute `argv`; `descriptors` become 0, 1, 2, 3, …"""
        message = json.dumps({"argv": list(argv), "env": list(env), "cwd": cwd}).encode()
        socket.send_fds(self._channel, [message], list(descriptors))
        self._channel.close()

    def discard(self) -> None:
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _live_as_child(channel: int, entry_files: Sequence[str]) -> None:
    """Never returns."""
    status = 127
    try:
        # a free low number for the channel, everything else closed
        os.dup2(channel, 3)
        os.closerange(4, 1 << 20)
        os.closerange(0, 3)
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        problem = _enter(entry_files)
        instruction, descriptors, _, _ = socket.recv_fds(socket.socket(fileno=3), _MAXIMUM_INSTRUCTION_BYTES, 16)
        if not instruction:
            os._exit(0)
        order: dict[str, Any] = json.loads(instruction)
        # first out of the way of the final numbers, then into place
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in descriptors]
        os.closerange(0, 100)
        for number, descriptor in enumerate(high):
            os.dup2(descriptor, number, inheritable=True)
        os.closerange(100, 1 << 20)
        if problem:
            os.write(2, problem.encode())
            os._exit(126)
        os.setsid()
        os.chdir(order["cwd"])
        os.execve(order["argv"][0], order["argv"], dict(word.split("=", 1) for word in order["env"]))
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(status)


def _enter(entry_files: Sequence[str]) -> str:
    """Move this process into its cgroups; answers what went wrong."""
    for file in entry_files:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"0")
            finally:
                os.close(descriptor)
        except OSError as error:
            return f"cannot enter the cgroup: {file}: {error.strerror}"
    return ""
