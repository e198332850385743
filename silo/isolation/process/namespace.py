"""The private mount namespace that the daemon and its keeper share, and in which containers' roots are mounted.

It lives as long as the keeper (or a container), so a daemon that comes again joins it through the keeper.
"""

from __future__ import annotations

import os
from pathlib import Path

from silo.errors import HostError
from silo.host import mounts, namespaces
from silo.isolation.process.keeper_client import keeper_pid
from silo.isolation.process.record import Paths

_UNIFIED = Path("/sys/fs/cgroup/unified")


def enter_mount_namespace(run_root: Path) -> None:
    """Join the mount namespace of the keeper that runs for `run_root`, else make one. Call it before any thread exists.

    The new one is a slave of the host's: mounts made on the host later appear in it, ours stay invisible. Raises HostError.
    """
    try:
        pid = keeper_pid(Paths(run_root.absolute()).keeper_socket)
        if pid is not None:
            descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                namespaces.join(descriptor, namespaces.CLONE_NEWNS)
            finally:
                os.close(descriptor)
            return
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.set_propagation("/", mounts.MS_REC | mounts.MS_SLAVE)
        hide_unified_hierarchy()
    except OSError as error:
        raise HostError(
            "a mount namespace of the daemon's own cannot be entered",
            details=str(error),
            hint="the daemon needs root (CAP_SYS_ADMIN), and this call must come before any thread is started",
        ) from error


def hide_unified_hierarchy() -> None:
    """crun up to 1.8 at least refuses hosts that have cgroup v2 beside v1; in our namespace they have v1 only."""
    if _UNIFIED.is_dir() and (_UNIFIED / "cgroup.procs").exists():
        mounts.unmount(_UNIFIED)
