"""Warming a template: all that a clone will do first is done once before it is saved, so that the clone finds it done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from silo.errors import GuestError
from silo.isolation.seccomp import SeccompSource
from silo.isolation.spec import Json
from silo.isolation.vm.guest_spec import CGROUP, build_guest_spec
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.session import FILES, ROOT, SCRATCH, GuestSession
from silo.model.accounts import Identity
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ProcessPlan, Rootfs

_CONNECT_LIMIT_S = 300.0
_EXERCISE = "/run/exercise"
_NO_DIRECTORY = Path("/exercise")
_NAMES = ("/etc/passwd", "/etc/group")


async def warm_linux(vm: VirtualMachine) -> None:
    """The agent's modules loaded, one complete container run, its root made of the guest's own files; then all of it undone."""
    session = GuestSession(vm)
    try:
        await session.connect(limit_s=_CONNECT_LIMIT_S)
        await session.reseed("template", "0" * 32)
        await _mount_root(session, SCRATCH, ROOT)
        await session.write_files({"/run/files/hosts": b""})
        await session.read_files(ROOT, _NAMES)
        await session.client.request("network", {"interfaces": []})
        await session.guest.stat({"root": ROOT}, "/")
        await session.unmount([ROOT, SCRATCH])
        # the mount points stay: making one takes a clone as long as mounting
        await _mount_root(session, _EXERCISE, f"{_EXERCISE}/root")
        await exercise_linux(session)
        await session.client.request("write_files", {"files": []})
        await session.client.request("void_seed")
    finally:
        session.client.close()


async def _mount_root(session: GuestSession, scratch: str, root: str) -> None:
    """The guest's own files as a container's root. That of _EXERCISE stays: a clone in the pool runs on it once more."""
    places = [f"{scratch}/upper", f"{scratch}/work"]
    await session.mount([{"type": "tmpfs", "source": "scratch", "target": scratch, "options": ["mode=755"]}])
    # for their mount points, which the tmpfs has not: taken away at once
    await session.mount([{"type": "tmpfs", "source": "none", "target": place} for place in places])
    await session.unmount(places)
    layers = f"lowerdir=/run/silo/base,upperdir={places[0]},workdir={places[1]}"
    await session.mount([{"type": "overlay", "source": "root", "target": root, "options": [layers]}])


async def exercise_linux(session: GuestSession) -> None:
    """Run a container to its end: the next one starts faster. Raises GuestError, Unavailable."""
    await _run(session, _spec())


async def rehearse_linux(session: GuestSession, seccomp: SeccompSource, *, entry: bool) -> None:
    """What a usual container's start asks of the guest, with its filter and its mounts, as a whole. Raises as `exercise_linux`.

    `entry`: as one that is begun ahead of its order.

    Code that has run once is translated already when the container comes.
    """
    plan = _usual_plan()
    spec = build_guest_spec(plan, Identity(0, 0), await asyncio.to_thread(seccomp.select, plan))
    spec["root"]["path"] = f"{_EXERCISE}/root"
    await rehearse_requests(session)
    await _run(session, spec, entry=entry)


async def rehearse_requests(session: GuestSession) -> None:
    """Those that go before a container's start; nothing is changed by them."""
    await asyncio.gather(
        session.write_files({f"{FILES}/hosts": b""}),
        session.read_files(ROOT, _NAMES),
        session.client.request("sysctl", {"values": {"net.ipv4.ip_unprivileged_port_start": "0"}}),
    )


async def _run(session: GuestSession, spec: Json, *, entry: bool = False) -> None:
    program = await session.guest.run("warm", spec, stdin=False, entry=entry)
    if entry:
        await session.guest.enter("warm", {**spec["process"], "args": ["/bin/echo", "warm"]})
    assert program.stdout is not None
    while await program.stdout.read():
        pass
    end = await program.wait()
    if end.code != 0:
        raise GuestError(f"the container that warms a template ended with code {end.code}")
    await session.guest.release(program)


def _usual_plan() -> ContainerPlan:
    hosts = PlannedMount(target="/etc/hosts", source=_NO_DIRECTORY / "hosts", kind=MountKind.BIND)
    return ContainerPlan(
        id="warm",
        personality=PersonalityName.LINUX,
        image_id="",
        rootfs=Rootfs(layers=(), scratch=_NO_DIRECTORY),
        process=ProcessPlan(args=("/bin/echo", "warm"), env=("PATH=/usr/bin:/bin",)),
        directory=_NO_DIRECTORY,
        hostname="warm",
        mounts=(hosts,),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
    )


def _spec() -> dict[str, Any]:
    flags = ["nosuid", "noexec", "nodev"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": flags},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*flags, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*flags, "ro"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*flags, "mode=1777", "size=65536k"]},
    ]
    process = {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/echo", "warm"],
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
    }
    return {
        "ociVersion": "1.0.0",
        "root": {"path": f"{_EXERCISE}/root"},
        "process": process,
        "hostname": "warm",
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup")],
            "cgroupsPath": CGROUP,
            "resources": {"unified": {"pids.max": "max"}},
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
