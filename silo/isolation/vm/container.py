"""A container in a VM as the daemon holds it: the record, which outlives the daemon, and what only a living daemon has.

<run root>/vms/ID/
  record.json   this record
  monitor.sock  agent.sock    see machine.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from silo.isolation.vm.clones import Clone
from silo.isolation.vm.guest_log import GuestLog
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.pumps import Inlet
from silo.isolation.vm.wires import Interface
from silo.model.runtime import ContainerPlan, ExitRecord, Statistics

UNKEPT_LOG_BYTES = 1 << 20


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of the sandbox that the guest has. `place`: of its device, -1 for the one that was there from the start."""

    interface: Interface
    place: int
    found_by: str
    """The MAC address that the guest's device came with."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    plan: ContainerPlan
    first_id: int
    pid: int
    pid_started: int
    memory_bytes: int
    processors: int
    image: Path
    mapped: bool
    started: bool = False
    begun: bool = False
    """Its first process is begun apart from its program, ahead of the order or as a silo: that it runs does not say that the
    program does."""
    paused: bool = False
    guest_pid: int = 0
    wires: dict[str, Wire] = {}
    hub_mac: str = ""
    """The address that the guest's first network device has now; empty before it got one."""


@dataclass(slots=True, eq=False)
class VmContainer:
    """`creating` is the guest's part of `prepare`, at work while the network is being connected."""

    record: Record
    clone: Clone
    log: GuestLog
    creating: asyncio.Task[None] | None = None
    main: GuestProgram | None = None
    inlet: Inlet | None = None
    exit: ExitRecord | None = None
    announced: bool = False
    """start() has answered: the end is the listener's business."""
    releasing: bool = False
    execs: set[object] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    wiring: asyncio.Lock = field(default_factory=asyncio.Lock)
    sequence: int = 0
    remap: Callable[[], None] = lambda: None
    """After the connection to the agent was lost and had again: what ended with it is begun anew."""
    lookers: int = 0
    """Who reads its files just now."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_statistics: Statistics = field(default_factory=Statistics)

    @property
    def id(self) -> str:
        return self.record.plan.id

    @property
    def running(self) -> bool:
        return self.record.started and self.exit is None and not self.releasing

    @property
    def netns(self) -> Path:
        """The network namespace of QEMU's jail, where silo.network plugs in what the guest gets."""
        return Path(f"/proc/{self.record.pid}/ns/net")

    @property
    def record_file(self) -> Path:
        return self.clone.directory / "record.json"
