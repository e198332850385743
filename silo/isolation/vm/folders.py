"""Folders of the host for a guest: QEMU serves them as one 9p file system, with a numbered entry for each.

They are mounted in the mount namespace of QEMU's jail while it runs. A folder is id-mapped into the jail's user namespace, so that
a file of the host's user N belongs to user N in the guest, whoever QEMU is; it is read-only there when the container has it so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from silo.errors import HostError
from silo.host import mounts, namespaces
from silo.isolation.bind_sources import clone_source
from silo.isolation.vm.jail import FOLDERS
from silo.model.mount import PlannedMount


def attach_folders(pid: int, planned: Sequence[PlannedMount], user_namespace: int) -> tuple[str, ...]:
    """Mount the sources at FOLDERS/0, 1, … of the jail that `pid` lives in; answers warnings. Blocks: for a thread.

    Raises InvalidRequest (a source is missing), HostError.
    """
    warnings: list[str] = []
    with contextlib.ExitStack() as stack:
        trees: list[tuple[int, bool]] = []
        for mount in planned:
            tree, is_directory, warning = clone_source(mount, user_namespace)
            stack.callback(os.close, tree)
            mounts.set_private(tree)
            trees.append((tree, is_directory))
            warnings += [warning] if warning else []
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, namespace)

        def attach_all() -> None:
            namespaces.join(namespace, namespaces.CLONE_NEWNS)
            for number, (tree, is_directory) in enumerate(trees):
                place = f"{FOLDERS}/{number}"
                if is_directory:
                    Path(place).mkdir(0o755)
                else:
                    os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
                mounts.attach(tree, place)

        try:
            namespaces.in_thread(attach_all, unshare_filesystem=True)
        except OSError as error:
            raise HostError("a folder could not be given to the virtual machine", details=str(error)) from error
    return tuple(warnings)
