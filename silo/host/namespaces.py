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
