"""Namespaces: the daemon's private mount namespace, identities of processes, and work inside another namespace.

`setns` and `unshare` of mount and user namespaces need a single-threaded process: `enter_mount_namespace` is for a
program's first lines; the keeper makes user namespaces.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from silo.errors import HostError
from silo.host.run import conversing
from silo.host.syscalls import libc

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def unshare(flags: int) -> None:
    libc("unshare", flags)


def join(descriptor: int, kind: int = 0) -> None:
    """Enter a namespace by its descriptor; raises OSError (EINVAL for mount namespaces when threads exist)."""
    libc("setns", descriptor, kind, subject=f"fd {descriptor}")


def in_thread(work: Callable[[], T], *, unshare_filesystem: bool = False) -> T:
    """Run `work` in a thread that dies afterwards, so that whatever namespace it entered is left behind.

    `unshare_filesystem` gives the thread its own root and working directory, which entering a mount namespace requires.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if unshare_filesystem:
                unshare(0x200)  # CLONE_FS
            outcome.append(work())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def set_hostname(pid: int, name: str) -> None:
    """In the UTS namespace of a process."""
    descriptor = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)

    def change() -> None:
        join(descriptor, CLONE_NEWUTS)
        socket.sethostname(name)

    try:
        in_thread(change)
    finally:
        os.close(descriptor)


def make_user_namespace(first_host_id: int, count: int, *, group: int | None = None) -> int:
    """A descriptor of a new user namespace whose ids 0 to count - 1 are the host's from `first_host_id` on. Blocks a few ms.

    `group`: a group of the host that is known inside too, as `count`. Raises HostError. A process is needed to be in it first:
    forking this one, with its threads, is out of the question.
    """
    with conversing(["unshare", "--user", "--", "cat"]) as inside:
        assert inside.stdin is not None and inside.stdout is not None
        inside.stdin.write(b"\n")
        if inside.stdout.read(1) != b"\n":
            raise HostError(
                "a user namespace cannot be made",
                hint="does this kernel allow them? see /proc/sys/user/max_user_namespaces",
            )
        users = f"0 {first_host_id} {count}\n"
        Path(f"/proc/{inside.pid}/uid_map").write_text(users)
        groups = users if group is None else f"{users}{count} {group} 1\n"
        Path(f"/proc/{inside.pid}/gid_map").write_text(groups)
        return os.open(f"/proc/{inside.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names one process for ever. 0: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat[stat.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def kill_process(pid: int, signal_number: int, *, started: int = 0) -> bool:
    """Signal exactly the process that was meant (a pid may be reused); False when it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if started and start_time(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, signal_number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
