"""KVM or TCG: decided by really booting the utility VM under a time limit, because a device that opens may still not work
(nested virtualisation that stops at the first guest).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from silo.errors import SiloError
from silo.isolation.vm.command import Accelerator

DEVICE = Path("/dev/kvm")
TrialBoot = Callable[[], Awaitable[None]]
"""Boots with KVM, ends the VM, and raises SiloError when its agent does not answer in time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`reason` is for `info`."""

    accelerator: Accelerator
    reason: str


def kvm_group(device: Path = DEVICE) -> int | None:
    """The group whose members may use KVM, which a jailed QEMU joins; None where there is none."""
    try:
        status = device.stat()
    except OSError:
        return None
    usable = stat.S_ISCHR(status.st_mode) and status.st_mode & 0o060 == 0o060 and status.st_gid != 0
    return status.st_gid if usable else None


async def choose_accelerator(trial_boot: TrialBoot, device: Path = DEVICE) -> Choice:
    """Never raises: without KVM everything works, slower."""
    if not device.exists():
        return Choice(Accelerator.TCG, f"there is no {device}")
    if kvm_group(device) is None:
        mode = stat.filemode(device.stat().st_mode)
        return Choice(Accelerator.TCG, f"{device} is for root alone ({mode}); QEMU runs as nobody of this host's")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Choice(Accelerator.TCG, f"{device} cannot be opened: {error.strerror}")
    try:
        await trial_boot()
    except SiloError as error:
        return Choice(Accelerator.TCG, f"a trial boot with KVM failed: {error.brief}")
    return Choice(Accelerator.KVM, "a trial boot succeeded")
