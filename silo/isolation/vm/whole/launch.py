"""QEMU and swtpm, started in jails of their own with descriptors of what the daemon has made for them.

<directory>/<listener>   a listening socket of QEMU's for each name given; monitor.sock is always one
<directory>/swtpm.log    what swtpm complains of; QEMU's complaints are kept in memory (machine.open_log)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from silo.errors import SiloError, ToolMissing
from silo.host.run import start_detached
from silo.isolation.vm.jail import QEMU, Jail, build_jail
from silo.isolation.vm.machine import join_started, listen_at, open_log
from silo.isolation.vm.process import Process
from silo.isolation.vm.qmp import EventListener, QmpClient

SWTPM = Path("/usr/bin/swtpm")
_SWTPM_IN_JAIL, _TPM_STATE_IN_JAIL = "/guest/swtpm", "/guest/tpm"
_QUIT_LIMIT_S = 2.0
_LARGEST_LOG_BYTES = 1 << 20

Wrap = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Puts words before a command's."""


class RunningQemu:
    """A QEMU with its monitor; it outlives the daemon."""

    def __init__(self, process: Process, monitor: QmpClient) -> None:
        self.process = process
        self.monitor = monitor

    async def end(self) -> None:
        """Nothing is left of it when this returns. Idempotent."""
        with contextlib.suppress(SiloError, TimeoutError):
            await self.monitor.execute("quit", limit_s=_QUIT_LIMIT_S)
            await self.process.until_dead(_QUIT_LIMIT_S)
        await self.process.kill()
        self.monitor.close()


async def start_jailed(
    directory: Path,
    build: Callable[[Mapping[str, int]], Sequence[str]],
    *,
    jail: Jail,
    listeners: Sequence[str],
    passed: Sequence[int],
    wrap: Wrap = lambda argv: argv,
    on_event: EventListener | None = None,
) -> RunningQemu:
    """Start the QEMU whose words `build` makes of its listening sockets' descriptors, by name; `passed` are further ones.

    Raises ToolMissing, HostError with QEMU's own complaint.
    """
    for tool, package in ((QEMU, "qemu-system-x86"), ("bwrap", "bubblewrap")):
        if shutil.which(tool) is None:
            raise ToolMissing(Path(tool).name, package)
    with contextlib.ExitStack() as undo:
        ends = {name: undo.enter_context(listen_at(directory, name)) for name in listeners}
        numbers = {name: end.fileno() for name, end in ends.items()}
        argv = wrap(build_jail(jail, build(numbers)))
        log = open_log()
        undo.callback(os.close, log)
        descriptors = [*numbers.values(), *passed]
        parent = await asyncio.to_thread(start_detached, argv, log=log, pass_fds=descriptors)
        pid, monitor = await join_started(directory, parent, ends.values(), on_event, log)
    return RunningQemu(Process(pid), monitor)


async def start_tpm(
    directory: Path, state: Path, *, uid: int, wrap: Wrap = lambda argv: argv
) -> tuple[int, socket.socket]:
    """A TPM 2.0 that keeps its state in the directory `state`: the pid of its bubblewrap, and QEMU's end of it.

    It ends with that connection. Raises ToolMissing.
    """
    if not SWTPM.exists():
        raise ToolMissing("swtpm")
    _give(state, uid)
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        words = [_SWTPM_IN_JAIL, "socket", "--tpm2", "--terminate"]
        words += ["--tpmstate", f"dir={_TPM_STATE_IN_JAIL},mode=0600"]
        words += ["--ctrl", f"type=unixio,clientfd={theirs.fileno()}"]
        jail = Jail(uid=uid, files={_SWTPM_IN_JAIL: SWTPM}, writable={_TPM_STATE_IN_JAIL: state})
        argv = wrap(build_jail(jail, words))
        descriptors = [theirs.fileno()]
        pid = await asyncio.to_thread(start_detached, argv, log=directory / "swtpm.log", pass_fds=descriptors)
        undo.pop_all()
    return pid, ours


def _give(folder: Path, uid: int) -> None:
    """The container may have had another user id when it ran before."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for place in (folder, *folder.iterdir()):
        os.chown(place, uid, uid, follow_symlinks=False)


def limited(argv: tuple[str, ...], *, memory_bytes: int, processor_s: int) -> tuple[str, ...]:
    """Pure: the command under limits that the kernel holds it to."""
    limits = (f"--as={memory_bytes}", f"--cpu={processor_s}", "--core=0", f"--fsize={_LARGEST_LOG_BYTES}")
    return ("prlimit", *limits, "--", *argv)
