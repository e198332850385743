"""Warming a template: all that a clone will do first is done once before it is saved, so that the clone finds it done."""

from __future__ import annotations

from typing import Any

from silo.errors import GuestError
from silo.isolation.vm.guest_spec import CGROUP
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.session import ROOT, SCRATCH, GuestSession

_CONNECT_LIMIT_S = 300.0
_EXERCISE = "/run/exercise"


async def warm_linux(vm: VirtualMachine) -> None:
    """The agent's modules loaded, one complete container run, its root made of the guest's own files; then all of it undone."""
    session = GuestSession(vm)
    try:
        await session.connect(limit_s=_CONNECT_LIMIT_S)
        await session.reseed("template", "0" * 32)
        await _mount_root(session, SCRATCH, ROOT)
        await session.write_files({"/run/files/hosts": b""})
        await session.read_files(ROOT, ["/etc/passwd", "/etc/group"])
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
    program = await session.guest.run("warm", _spec(), stdin=False)
    assert program.stdout is not None
    while await program.stdout.read():
        pass
    end = await program.wait()
    if end.code != 0:
        raise GuestError(f"the container that warms a template ended with code {end.code}")
    await session.guest.release(program)


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
