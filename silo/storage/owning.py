"""Give a directory of a container's root to the user who has to own it, before the first start."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from silo.errors import InvalidRequest
from silo.host.beneath import Root
from silo.model.runtime import Rootfs, ScratchOwner
from silo.storage.failures import explained

_MAXIMUM_COPY_BYTES = 64 * 1024 * 1024


def is_owned(rootfs: Rootfs, owner: ScratchOwner) -> bool:
    """Whether the directory that the container will see belongs to `owner` already; nothing is mounted to tell."""
    for layer in (rootfs.scratch / "upper", *rootfs.layers):
        try:
            status = os.lstat(f"{layer}{owner.path}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return (status.st_uid, status.st_gid) == (owner.uid, owner.gid)
    return False


def give(root_path: Path, owner: ScratchOwner) -> None:
    """The directory last: a crash on the way leaves the old owner, and the next start begins anew; what was kept is not kept
    again, because its source has another owner by then. Raises InvalidRequest."""
    with explained(f"give {owner.path} to the container's user"), Root(root_path) as root:
        found = root.status(owner.path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise InvalidRequest(
                f"the image has no directory {owner.path}", hint="a Windows image has to be built on Silo's base"
            )
        for uid, source, target in owner.keeps:
            status = root.status(source)
            if status is not None and status.st_uid == uid:
                _copy(root, source, target, uid, status.st_gid)
        for source, target in owner.copies:
            if root.status(source) is not None:
                _copy(root, source, target, owner.uid, owner.gid)
        root.set_owner(owner.path, owner.uid, owner.gid)


def _copy(root: Root, source: str, target: str, uid: int, gid: int) -> None:
    """Whole and with its owner, or not at all."""
    with open(root.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        data = file.read(_MAXIMUM_COPY_BYTES)
    fresh = f"{target}.new"
    root.locate(target, create_parents=True)
    root.remove(fresh)
    with open(root.open_write(fresh, 0o644), "wb") as file:
        file.write(data)
        os.fchown(file.fileno(), uid, gid)
    parent, name = root.locate(target)
    os.rename(f"{name}.new", name, src_dir_fd=parent, dst_dir_fd=parent)
