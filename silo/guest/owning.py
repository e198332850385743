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
from silo.guest.mounting import make_directories
from silo.guest.places import open_parent

_MAXIMUM_COPY_BYTES = 64 << 20
_MAXIMUM_ID = (1 << 32) - 2
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def give(root_path: str, order: dict[str, Any]) -> bool:
    """`path`, `uid`, `gid`, `keeps` ([uid, source, target] each: where that user owns the source), `copies` ([source, target]).

    False: it is owned already, and nothing was done. The directory comes last: a crash on the way leaves the old owner, and the
    next start begins anew; what was kept is not kept again, because its source has another owner by then.
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
            for owner, source, target in order.get("keeps", ()):
                _copy(root, str(source), str(target), int(owner), int(owner), only_of=int(owner))
            for source, target in order.get("copies", ()):
                _copy(root, str(source), str(target), uid, gid)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
    finally:
        os.close(root)
    return True


def _copy(root: int, source: str, target: str, uid: int, gid: int, *, only_of: int = -1) -> None:
    """Whole and with its owner, or not at all. A source that is not there, or is not `only_of`'s, is passed over."""
    try:
        descriptor = open_in_root(root, source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        if only_of not in (-1, os.fstat(descriptor).st_uid):
            return
        data = file.read(_MAXIMUM_COPY_BYTES)
    make_directories(root, target.rpartition("/")[0])
    parent, name = open_parent(root, target)
    fresh = f"{name}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=parent)
        with open(os.open(fresh, _NEW_FILE, 0o644, dir_fd=parent), "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), uid, gid)
        os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)
