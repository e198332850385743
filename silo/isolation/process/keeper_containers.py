"""What the keeper holds of one container: its process, streams, log and end.

Standard library only (the keeper runs without site-packages).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import termios
import time
from typing import Any

from silo.isolation.container_log import LogWriter
from silo.isolation.process.keeper_children import Parked
from silo.model.exit_codes import KILLED

Request = dict[str, Any]

"""Of a container that was not this keeper's child, on a kernel that does not tell (before Linux 6.15)."""

# ioctl(2) of a pidfd, `include/uapi/linux/pidfd.h`
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8


class Container:
    """`outputs` maps descriptors to the stream number of the log."""

    def __init__(self, container_id: str, order: Request) -> None:
        self.settle(container_id, order)
        self.pid = 0
        self.outputs: dict[int, int] = {}
        self.input = -1
        self.terminal = -1
        self.status_pipe = -1
        self.process = -1
        """A pidfd, only for a container taken over from a keeper that died."""
        self.exit: dict[str, Any] | None = None
        self.dirty = False

    def settle(self, container_id: str, order: Request) -> None:
        """Whose it is, and where its log and its end are written."""
        self.id = container_id
        self.directory: str = order["directory"]
        self.memory_file: str = order.get("memory_file", "")
        self.log = LogWriter(order["log"], int(order.get("log_max_bytes", 0)))

    def streams(self) -> dict[str, int]:
        """The open descriptors by role, as `adopt` takes them again."""
        roles = {f"output{stream}": descriptor for descriptor, stream in self.outputs.items()}
        if self.terminal >= 0:
            roles = {"terminal": self.terminal}
        if self.input >= 0:
            roles["input"] = self.input
        if self.status_pipe >= 0:
            roles["status"] = self.status_pipe
        return roles

    def take_streams(self, roles: dict[str, int]) -> None:
        for role, descriptor in roles.items():
            os.set_blocking(descriptor, False)
            if role == "terminal":
                self.terminal = descriptor
                self.outputs[descriptor] = 1
            elif role == "input":
                self.input = descriptor
            elif role == "status":
                self.status_pipe = descriptor
            else:
                self.outputs[descriptor] = int(role.removeprefix("output"))

    def open_descriptors(self) -> set[int]:
        return {*self.outputs, self.input, self.terminal, self.status_pipe, self.process} - {-1}

    def close(self) -> None:
        for descriptor in self.open_descriptors():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.outputs = {}
        self.input = self.terminal = self.status_pipe = self.process = -1
        self.log.close()

    def end(self, code: int) -> dict[str, Any]:
        """The record of its end, on disk first. A Windows program's own code comes through the status pipe."""
        if self.status_pipe >= 0:
            with contextlib.suppress(OSError):
                untrusted_code = os.read(self.status_pipe, 4)
                if len(untrusted_code) == 4:
                    code = struct.unpack("<I", untrusted_code)[0]
        self.exit = {"exit_code": code, "finished_at": timestamp(), "oom_killed": out_of_memory(self.memory_file)}
        write_exit(self.directory, self.exit)
        return self.exit


class Job:
    """A crun on its way: replied to when it ends. `console` is the socket on which its terminal arrives."""

    def __init__(self, client: socket.socket, order: Request, container: Container | None, parked: Parked) -> None:
        self.client = client
        self.order = order
        self.container = container
        self.pid = parked.pid
        self.console: socket.socket | None = None
        self.terminal = -1

    def accept_terminal(self) -> None:
        """crun has connected before it ends, so this never waits."""
        if self.console is None:
            return
        with contextlib.suppress(OSError):
            connection, _ = self.console.accept()
            with connection:
                connection.settimeout(5)
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
                self.terminal = descriptors[0] if descriptors else -1
        self.close_console()

    def close_console(self) -> None:
        if self.console is not None:
            self.console.close()
            self.console = None
            with contextlib.suppress(OSError):
                os.unlink(self.order["console"])  # noqa: PTH108 - pathlib would make the keeper larger

    def load_pid(self) -> int:
        """The process that crun made. Raises OSError, ValueError."""
        with open(self.order["pid_file"]) as file:
            return int(file.read())


def listen_for_terminal(path: str) -> socket.socket:
    console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    console.bind(path)
    console.listen(1)
    console.setblocking(False)
    return console


def exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def adopted_exit_code(process: int) -> int:
    """Of a process that is not our child and has ended, by its pidfd."""
    for _ in range(100):
        info = bytearray(struct.pack("Q56x", _PIDFD_INFO_EXIT))
        try:
            fcntl.ioctl(process, _PIDFD_GET_INFO, info)
        except OSError:
            return KILLED
        if struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
            return exit_code(struct.unpack_from("i", info, 60)[0])
        # known only once its new parent has reaped it
        time.sleep(0.002)
    return KILLED


def timestamp() -> str:
    """Now, RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def out_of_memory(file: str) -> bool:
    """Did the kernel kill anything of that cgroup for want of memory?"""
    if not file:
        return False
    with contextlib.suppress(OSError), open(file) as lines:
        for line in lines:
            words = line.split()
            if words[:1] == ["oom_kill"]:
                return int(words[1]) > 0
    return False


def write_exit(directory: str, record: dict[str, Any]) -> None:
    """exit.json, whole or not at all. A full disk must not keep the daemon from being told."""
    target = f"{directory}/exit.json"
    try:
        with open(f"{target}.new", "w") as file:
            json.dump(record, file)
        os.replace(f"{target}.new", target)  # noqa: PTH105
    except OSError as error:
        print(f"keeper: {target}: {error}", file=sys.stderr, flush=True)


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_available(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):
        return os.read(descriptor, 65536)
    return b""
