"""Warming a template: all that a clone will do first is done once before it is saved, so that the clone finds it done."""

from __future__ import annotations

from typing import Any

from silo.errors import GuestError
from silo.isolation.vm.guest_spec import CGROUP
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.session import ROOT, SCRATCH, GuestSession

_CONNECT_LIMIT_S = 300.0


async def warm_linux(vm: VirtualMachine) -> None:
    """The agent's modules loaded, one complete container run, its root made of the guest's own files; then all of it undone."""
    session = GuestSession(vm)
    try:
        await session.connect(limit_s=_CONNECT_LIMIT_S)
        await session.reseed("template", "0" * 32)
        layers = f"lowerdir=/run/silo/base,upperdir={SCRATCH}/upper,workdir={SCRATCH}/work"
        await session.mount(
            [
                {"type": "tmpfs", "source": "scratch", "target": SCRATCH, "options": ["mode=755"]},
                # for their mount points, which tmpfs has not: taken away at once
                {"type": "tmpfs", "source": "upper", "target": f"{SCRATCH}/upper"},
                {"type": "tmpfs", "source": "work", "target": f"{SCRATCH}/work"},
            ]
        )
        await session.unmount([f"{SCRATCH}/upper", f"{SCRATCH}/work"])
        await session.mount([{"type": "overlay", "source": "root", "target": ROOT, "options": [layers]}])
        await session.write_files({"/run/files/hosts": b""})
        await session.read_files(ROOT, ["/etc/passwd", "/etc/group"])
        await session.client.request("network", {"interfaces": []})
        await _run_once(session)
        await session.guest.stat({"root": ROOT}, "/")
        await session.unmount([ROOT, SCRATCH])
        # the mount points stay: making one takes a clone as long as mounting
        await session.client.request("write_files", {"files": []})
        await session.client.request("void_seed")
    finally:
        session.client.close()


async def _run_once(session: GuestSession) -> None:
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
        "root": {"path": ROOT},
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
