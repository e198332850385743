"""Sources of bind mounts and volumes as detached mounts, id-mapped into the namespace of whoever gets them."""

from __future__ import annotations

import errno
import os
import stat

from silo.errors import HostError, InvalidRequest
from silo.host import mounts
from silo.model.mount import PlannedMount


def clone_source(mount: PlannedMount, user_namespace: int) -> tuple[int, bool, str]:
    """(detached tree, is a directory, warning). The tree is id-mapped if it can be, read-only if it shall be."""
    if mount.source is None:
        raise InvalidRequest(f"the mount at {mount.target} has no source")
    try:
        is_directory = stat.S_ISDIR(mount.source.stat().st_mode)
        tree = mounts.clone_tree(mount.source, recursive=True)
    except FileNotFoundError as error:
        raise InvalidRequest(f"bind source path does not exist: {mount.source}") from error
    except OSError as error:
        raise HostError(f"cannot bind {mount.source}", details=str(error)) from error
    warning = ""
    try:
        if not _try_idmap(tree, user_namespace):
            warning = (
                f"{mount.source} is on a file system that cannot be id-mapped: in the container its files belong to nobody "
                "and only their permissions for others count (--userns=host avoids this)"
            )
        if mount.read_only:
            mounts.set_read_only(tree, recursive=True)
    except BaseException:
        os.close(tree)
        raise
    return tree, is_directory, warning


def _try_idmap(tree: int, user_namespace: int) -> bool:
    """The whole tree, else its top mount alone (a file system beneath it cannot), else False."""
    for recursive in (True, False):
        try:
            mounts.set_idmap(tree, user_namespace, recursive=recursive)
            return True
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise HostError("id-mapping a mount failed", details=str(error)) from error
    return False
