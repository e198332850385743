"""Capabilities of Linux: their names, what this host has, and the calling thread's sets.

Source: capabilities(7), `include/uapi/linux/capability.h`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from silo.host.syscalls import libc

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""By number, without the prefix CAP_."""

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        (f"{name}_{half}", ctypes.c_uint32)
        for half in ("low", "high")
        for name in ("effective", "permitted", "inheritable")
    ]


def load_thread() -> ctypes.Structure:
    """The calling thread's sets, to be given back to set_thread."""
    data = _Data()
    libc("capget", _Header(_VERSION_3, 0), data)
    return data


def set_thread(data: ctypes.Structure) -> None:
    libc("capset", _Header(_VERSION_3, 0), data)


def bounding() -> frozenset[str]:
    """Names (CAP_…) that this process, and so any container, may have at all."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(f"CAP_{name}" for number, name in enumerate(NAMES) if mask >> number & 1)
    return frozenset()
