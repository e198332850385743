"""A container that boots a disk as the daemon holds it: the record, which outlives the daemon, and what only a living daemon has.

<run root>/vms/ID/
  container.json   this record
  machine.json monitor.sock agent.sock serial.sock screen.sock qemu.log swtpm.log    see whole/guest.py
<data root>/containers/ID/machine/
  overlay.qcow2 base.json variables.fd tpm/    likewise
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from silo.errors import Conflict, SiloError, Unavailable
from silo.isolation import run_files
from silo.isolation.vm.disk_exec import DiskExec
from silo.isolation.vm.disk_network import Card
from silo.isolation.vm.guest_log import GuestLog
from silo.isolation.vm.pumps import Inlet
from silo.isolation.vm.whole.guest import WholeEnd, WholeGuest
from silo.model.clock import now
from silo.model.runtime import ContainerPlan, ExitRecord, Statistics

log = logging.getLogger(__name__)

RECORD_NAME = "container.json"
_AGENT_LIMIT_S = 5.0


class DiskRecord(msgspec.Struct, frozen=True, kw_only=True):
    plan: ContainerPlan
    first_id: int
    pid: int
    memory_bytes: int
    started: bool = False
    paused: bool = False
    plugged: str = ""
    """See Card."""


@dataclass(slots=True, eq=False)
class DiskContainer:
    record: DiskRecord
    guest: WholeGuest
    log: GuestLog
    card: Card
    inlet: Inlet | None = None
    exit: ExitRecord | None = None
    announced: bool = False
    """start() has answered: the end is the listener's business."""
    releasing: bool = False
    killed: bool = False
    execs: set[DiskExec] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    shutting_down: asyncio.Task[None] | None = None
    last_statistics: Statistics = field(default_factory=Statistics)

    @property
    def id(self) -> str:
        return self.record.plan.id

    @property
    def directory(self) -> Path:
        return self.guest.directory

    @property
    def netns(self) -> Path:
        return Path(f"/proc/{self.record.pid}/ns/net")

    @property
    def running(self) -> bool:
        return self.record.started and self.exit is None and not self.releasing

    def remember(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, plugged=self.card.plugged, **changes)
        run_files.save(self.directory / RECORD_NAME, self.record)

    def check_awake(self, what: str) -> None:
        """Raises Conflict."""
        if not self.running:
            raise Conflict(f"container {self.id[:12]} is not running")
        if self.record.paused:
            raise Conflict(f"container {self.id[:12]} is paused: unpause it before {what}")

    async def check_agent(self, what: str) -> None:
        """Raises Unavailable with what a user can do about an agent that does not answer, Conflict."""
        self.check_awake(what)
        try:
            await self.guest.agent.ping(_AGENT_LIMIT_S)
        except SiloError as error:
            raise Unavailable(
                f"{what} needs the guest agent of the disk's system, which does not answer",
                details=self.guest.console.last_lines(10) or error.brief,
                hint="it may still be starting; else install qemu-guest-agent in it (docs/windows-guest.md), "
                "or use its console (silo attach), its screen or its network",
            ) from error


class SerialLine:
    """The console's input as silo.isolation.vm.pumps knows it."""

    def __init__(self, guest: WholeGuest) -> None:
        self._guest = guest

    async def write(self, data: bytes) -> None:
        await self._guest.write_serial(data)

    def close(self) -> None:
        """A serial line has no end."""


def exit_record(end: WholeEnd, container: DiskContainer, *, out_of_memory: bool) -> ExitRecord:
    error = ""
    if end.code and not container.killed:
        reason = f" ({end.untrusted_reason})" if end.untrusted_reason else ""
        complaint = _last_words(container.directory / "qemu.log")
        error = f"the virtual machine has ended unexpectedly{reason}{': ' * bool(complaint)}{complaint}"
        log.error("container %s: %s", container.id[:12], error)
    return ExitRecord(exit_code=end.code, finished_at=now(), oom_killed=out_of_memory, error=error)


def _last_words(log_path: Path) -> str:
    with contextlib.suppress(OSError), open(log_path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 500))
        return file.read().decode(errors="replace").strip()
    return ""
