"""What machines are made of is damaged or missing: errors that say what and what to do, soon, and nothing is left running."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from silo.errors import InvalidRequest, SiloError, ToolMissing
from silo.model.container import Resources
from silo.model.vm_image import VmImage
from tests.contract.subjects import LinuxSubject


def cut_root(image: Path) -> None:
    os.truncate(image / "root.erofs", 2 << 20)


def empty_root(image: Path) -> None:
    os.truncate(image / "root.erofs", 0)


def wrong_root(image: Path) -> None:
    """As another version might have it: a file system without an agent."""
    size = (image / "root.erofs").stat().st_size
    os.truncate(image / "root.erofs", 0)
    os.truncate(image / "root.erofs", size)


def no_kernel(image: Path) -> None:
    (image / "vmlinuz").unlink()


def bad_kernel(image: Path) -> None:
    (image / "vmlinuz").write_bytes(b"no kernel" * 1000)


def bad_initrd(image: Path) -> None:
    (image / "initrd.img").write_bytes(b"no initrd" * 1000)


def other_kernel(image: Path) -> None:
    size = (image / "vmlinuz").stat().st_size
    (image / "vmlinuz").write_bytes(b"no kernel".ljust(size, b"\0"))


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (cut_root, "root.erofs"),
        (empty_root, "root.erofs"),
        (wrong_root, "root.erofs"),
        (no_kernel, "vmlinuz"),
        (bad_kernel, "vmlinuz"),
        (other_kernel, "vmlinuz"),
        (bad_initrd, "initrd.img"),
    ],
)
async def test_a_damaged_image(
    subject: LinuxSubject, spoiled_image: VmImage, places: Path, spoil: Callable[[Path], None], name: str
) -> None:
    spoil(spoiled_image.directory)
    plan = subject.plan("say", "x")
    began = time.monotonic()
    with pytest.raises(SiloError) as raised:
        await subject.runtime.prepare(plan)
    assert time.monotonic() - began < 60
    error = raised.value
    words = f"{error.brief} {error.details} {error.hint}"
    assert "is damaged" in error.brief and error.details.startswith(name) and "silo base build" in error.hint, words
    assert not list((places / "run" / "vms").iterdir())


async def test_too_little_memory(subject: LinuxSubject) -> None:
    with pytest.raises(InvalidRequest, match="too little for a container in a virtual machine") as raised:
        await subject.runtime.prepare(subject.plan("say", "x", resources=Resources(memory_bytes=8 << 20)))
    assert "16m" in raised.value.hint


async def test_no_qemu(subject: LinuxSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.isolation.vm.runtime.QEMU", "/nowhere/qemu-system-x86_64")
    with pytest.raises(ToolMissing, match="qemu-system-x86_64") as raised:
        await subject.runtime.prepare(subject.plan("say", "x"))
    assert "qemu-system-x86" in raised.value.hint
    assert "qemu-system-x86" in subject.runtime.report().warnings[0]
