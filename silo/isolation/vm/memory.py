"""The memory of a template: written once, then sealed, and mapped privately by every clone.

QEMU opens a memory file for writing even when it maps it privately, so permissions cannot keep a clone that has been broken
into from changing what all others are made of. Seals can: once sealed nobody writes to the file, whoever holds it, while private
mappings still copy on write. Source: memfd_create(2), fcntl(2) "File Sealing".
"""

from __future__ import annotations

import fcntl
import os

from silo.errors import HostError

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_memory(size_bytes: int) -> int:
    """An empty file in memory, for a template to write; the caller closes the descriptor. Raises HostError."""
    try:
        descriptor = os.memfd_create("silo-guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        raise HostError("memory for a virtual machine cannot be had", details=str(error)) from error
    return descriptor


def seal_memory(descriptor: int) -> None:
    """After the template has ended: nothing in it changes any more. Raises HostError while somebody can still write."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise HostError("a template's memory cannot be sealed: its machine still runs", details=str(error)) from error


def is_sealed(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
