"""Which accelerator is chosen, and what `info` says of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from silo.errors import GuestError, SiloError
from silo.isolation.vm import accelerator
from silo.isolation.vm.accelerator import Choice, choose_accelerator, kvm_group
from silo.isolation.vm.command import Accelerator


def choose(device: Path, failure: SiloError | None = None) -> tuple[Choice, int]:
    boots = 0

    async def boot() -> None:
        nonlocal boots
        boots += 1
        if failure is not None:
            raise failure

    return asyncio.run(choose_accelerator(boot, device)), boots


def test_without_a_device(tmp_path: Path) -> None:
    choice, boots = choose(tmp_path / "kvm")
    assert choice.accelerator is Accelerator.TCG and "there is no" in choice.reason and boots == 0


def test_a_device_for_root_alone() -> None:
    # /dev/null may be used by all but belongs to no group
    choice, boots = choose(Path("/dev/null"))
    assert choice.accelerator is Accelerator.TCG and "root alone (crw-rw-rw-)" in choice.reason and boots == 0
    assert kvm_group(Path("/dev/null")) is None and kvm_group(Path("/etc/passwd")) is None


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accelerator, "kvm_group", lambda _device: 105)
    return Path(os.devnull)


def test_a_trial_boot_decides(usable: Path) -> None:
    assert choose(usable) == (Choice(Accelerator.KVM, "a trial boot succeeded"), 1)
    failed = GuestError("the virtual machine was not ready within 5 s")
    choice, boots = choose(usable, failed)
    assert choice.accelerator is Accelerator.TCG and boots == 1
    assert choice.reason == "a trial boot with KVM failed: the virtual machine was not ready within 5 s"
