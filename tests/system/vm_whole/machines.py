"""A whole guest of the test's Debian disk, one at a time."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from silo.host import namespaces
from silo.host.cgroups import CgroupTree, find_layout
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.whole.boot import WholePlan
from silo.isolation.vm.whole.command import WholeMachine
from silo.isolation.vm.whole.guest import WholeGuest
from silo.model.disk_guest import DiskFormat, DiskGuest, Firmware
from tests.support.probes import require, require_program, require_root
from tests.system.vm_whole.debian_disk import BIOS_CODE, BOOT_LOADER, TOOLS, ensure_disk

UID = 1_800_100_000
BOOT_LIMIT_S = 150
MEMORY_BYTES = 384 << 20
# linux/if_tun.h
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def require_machines() -> None:
    require_root()
    require_program("qemu-system-x86_64", "qemu-system-x86")
    require_program("bwrap", "bubblewrap")
    require_program("qemu-img", "qemu-utils")
    require_program("ip", "iproute2")


def debian() -> Path:
    """The disk, made if need be."""
    require_machines()
    base = os.environ.get("SILO_TEST_BASE_ROOT", "")
    require("a place to keep the test's disk", bool(base), "SILO_TEST_BASE_ROOT is not set")
    for tool, package in TOOLS.items():
        require_program(tool, package)
    require("systemd-boot", BOOT_LOADER.exists(), f"{BOOT_LOADER} is not there; apt-get install systemd-boot-efi")
    require("syslinux's boot code", BIOS_CODE.exists(), f"{BIOS_CODE} is not there; apt-get install syslinux-common")
    return ensure_disk(Path(base))


def plan(folder: Path, disk: Path, **options: Any) -> WholePlan:
    """A raw disk by BIOS; `options` are WholePlan's, WholeMachine's and DiskGuest's."""
    store, directory = folder / "store", folder / "run"
    store.mkdir(exist_ok=True)
    directory.mkdir(exist_ok=True)
    cgroup_files = options.pop("cgroup_files", ())
    mac = options.pop("mac", "")
    guest = DiskGuest(path=disk, **{"format": DiskFormat.RAW, "firmware": Firmware.BIOS, **options})
    machine = WholeMachine(disk=guest, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG, mac=mac)
    return WholePlan(machine=machine, store=store, directory=directory, uid=UID, cgroup_files=cgroup_files)


@asynccontextmanager
async def booted(the_plan: WholePlan, **options: Any) -> AsyncIterator[WholeGuest]:
    """Its agent answers; nothing of it is left afterwards."""
    guest = await WholeGuest.start(the_plan, **options)
    try:
        await guest.wait_for_agent(BOOT_LIMIT_S)
        yield guest
    finally:
        await guest.end()


async def run(guest: WholeGuest, script: str, **options: Any) -> tuple[str, str, int]:
    """(stdout, stderr, code)"""
    done = await guest.execute(("/bin/sh", "-c", script), **options)
    return done.untrusted_stdout.decode(), done.untrusted_stderr.decode(), done.code


@contextmanager
def network(address: str) -> Iterator[int]:
    """A tap in a network namespace of its own, where the kernel answers at `address`; both end with it."""
    made: list[int] = []

    def make() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        # the namespace lives as long as somebody holds it
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        made.append(tap)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _IFF_TAP | _IFF_NO_PI))
        for words in (("addr", "add", address, "dev", "tap0"), ("link", "set", "tap0", "up")):
            subprocess.run(["ip", *words], check=True)

    try:
        namespaces.in_thread(make)
        yield made[1]
    finally:
        for descriptor in made:
            os.close(descriptor)


@contextmanager
def cgroup() -> Iterator[tuple[tuple[str, ...], Callable[[], tuple[int, ...]]]]:
    """(entry files, which processes are in it)"""
    tree = CgroupTree(find_layout(), parent=f"silo-test-{os.getpid()}")
    tree.open()
    tree.create("whole")
    try:
        yield tree.entry_files("whole"), lambda: tree.pids("whole")
    finally:
        tree.remove("whole")
        tree.close()


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scenario(body: Coroutine[Any, Any, None], limit_s: float = 280) -> None:
    asyncio.run(asyncio.wait_for(body, limit_s))
