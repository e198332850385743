"""One daemon per data root: an advisory lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from silo.errors import Conflict, HostError


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (made if missing, never removed) for the length of the block.

    Raises Conflict naming the holder when another process has it. The descriptor is closed on exec, so that programs started
    by the holder do not keep the lock after its end.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot open the lock file {path}", details=str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            untrusted_holder = os.pread(descriptor, 32, 0).strip()
            holder = f" (process {int(untrusted_holder)})" if untrusted_holder.isdigit() else ""
            raise Conflict(
                f"another daemon{holder} uses {path.parent}",
                hint="stop it first, or give this one a data root of its own",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
