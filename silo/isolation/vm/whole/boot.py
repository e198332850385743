"""Starting a whole guest's programs of a plan: QEMU with all that it gets as descriptors, and its TPM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import ToolMissing, Unavailable
from silo.isolation.vm.accelerator import kvm_group
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.jail import Jail
from silo.isolation.vm.machine import at_directory, enter_groups
from silo.isolation.vm.process import Process, child_of
from silo.isolation.vm.whole.command import (
    FIRMWARE_CODE,
    FIRMWARE_PLACE,
    FIRMWARE_VARIABLES,
    WholeDescriptors,
    WholeMachine,
    build_whole,
)
from silo.isolation.vm.whole.disk import OpenDisk, ensure_overlay, opened
from silo.isolation.vm.whole.launch import RunningQemu, start_jailed, start_tpm
from silo.model.disk_guest import Firmware

LISTENERS = ("monitor.sock", "agent.sock", "serial.sock")


@dataclass(frozen=True, slots=True)
class WholePlan:
    """`store` and `directory` exist; see guest.py. `uid` is this machine's own.

    `cgroup_files` are what QEMU and swtpm write "0" to, to enter their control groups.
    """

    machine: WholeMachine
    store: Path
    directory: Path
    uid: int
    cgroup_files: tuple[str, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """machine.json. Pids with start times; 0 stands for none."""

    qemu: tuple[int, int]
    tpm: tuple[int, int] = (0, 0)
    memory_bytes: int


class Events:
    """QEMU's; they may come before there is a guest to hear them."""

    def __init__(self) -> None:
        self.listener: Callable[[str, dict[str, Any]], None] | None = None

    def take(self, name: str, data: dict[str, Any]) -> None:
        if self.listener is not None:
            self.listener(name, data)


def connect_at(directory: Path, name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        at_directory(directory, name, connection.connect)
    except OSError as error:
        connection.close()
        raise Unavailable("the virtual machine has ended", details=str(error)) from error
    connection.setblocking(False)
    return connection


async def start_programs(
    plan: WholePlan, disk: OpenDisk, tap: int, events: Events
) -> tuple[RunningQemu, Process | None]:
    """QEMU, which waits for `cont`, and swtpm if there is one. Raises ToolMissing, HostError; nothing runs then."""
    machine = plan.machine
    with contextlib.ExitStack() as kept:
        overlay = variables = tpm = -1
        files: dict[str, Path] = {}
        if not machine.disk.persist:
            overlay = kept.enter_context(opened(await asyncio.to_thread(ensure_overlay, plan.store, disk)))
        if machine.disk.firmware is Firmware.UEFI:
            variables = kept.enter_context(opened(_ensure_variables(plan.store)))
            files[FIRMWARE_PLACE] = FIRMWARE_CODE
        tpm_parent = 0

        def enter(argv: tuple[str, ...]) -> tuple[str, ...]:
            return (*enter_groups(plan.cgroup_files), *argv)

        if machine.disk.tpm:
            tpm_parent, tpm_end = await start_tpm(plan.directory, plan.store / "tpm", uid=plan.uid, wrap=enter)
            tpm = kept.enter_context(tpm_end).fileno()

        def build(ends: Mapping[str, int]) -> tuple[str, ...]:
            monitor, agent, serial = (ends[name] for name in LISTENERS)
            every = WholeDescriptors(monitor, agent, serial, disk.descriptor, overlay, variables, tpm, tap)
            return build_whole(machine, every)

        passed = [number for number in (disk.descriptor, overlay, variables, tpm, tap) if number >= 0]
        group = kvm_group() if machine.accelerator is Accelerator.KVM else None
        qemu = await start_jailed(
            plan.directory,
            build,
            jail=Jail(uid=plan.uid, files=files, kvm_group=group),
            listeners=LISTENERS,
            passed=passed,
            wrap=enter,
            on_event=events.take,
        )
        # it has answered QEMU, so it is there
        return qemu, Process(child_of(tpm_parent)) if tpm_parent else None


def _ensure_variables(store: Path) -> Path:
    """UEFI's variables of this machine, such as what it boots. Raises ToolMissing."""
    for file in (FIRMWARE_CODE, FIRMWARE_VARIABLES):
        if not os.access(file, os.R_OK):
            raise ToolMissing(f"OVMF, the UEFI firmware ({file}),", "ovmf")
    variables = store / "variables.fd"
    if not variables.exists():
        temporary = store / ".variables.fd"
        shutil.copyfile(FIRMWARE_VARIABLES, temporary)
        temporary.chmod(0o600)
        temporary.replace(variables)
    return variables
