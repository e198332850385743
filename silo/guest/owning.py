"""A directory of a container's root is given to the user who has to own it, before the first start.

As silo/storage/owning.py does it on the host for the process level: what a guest has written is mounted by no host.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from silo.guest.failures import Refused
from silo.guest.kernel import open_in_root
from silo.guest.places import open_parent

_MAXIMUM_COPY_BYTES = 64 << 20
_MAXIMUM_ID = (1 << 32) - 2
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def give(root_path: str, order: dict[str, Any]) -> bool:
    """`path`, `uid`, `gid`, `copies` ([source, target] each). False: it is owned already, and nothing was done.

    Copies come first: a crash on the way leaves the old owner, and the next start begins anew.
    """
    path, uid, gid = str(order["path"]), int(order["uid"]), int(order["gid"])
    if not (0 <= uid <= _MAXIMUM_ID and 0 <= gid <= _MAXIMUM_ID):
        raise Refused("invalid", f"{uid}:{gid} is no owner")
    root = os.open(root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parent, name = open_parent(root, path)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise Refused("invalid", f"{path} is no directory")
            if (status.st_uid, status.st_gid) == (uid, gid):
                return False
            for source, target in order.get("copies", ()):
                _copy(root, str(source), str(target), uid, gid)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
    finally:
        os.close(root)
    return True


def _copy(root: int, source: str, target: str, uid: int, gid: int) -> None:
    """A source that is not there is passed over."""
    try:
        descriptor = open_in_root(root, source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        data = file.read(_MAXIMUM_COPY_BYTES)
    parent, name = open_parent(root, target)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        with open(os.open(name, _NEW_FILE, 0o644, dir_fd=parent), "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), uid, gid)
    finally:
        os.close(parent)
