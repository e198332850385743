"""Folders for a container that runs already: bind mounts in its own mount namespace. Runs in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from silo.guest.kernel import clone_tree, join_mounts, move_mount, open_in_root
from silo.guest.mounting import make_directories


def attach(pid: int, wanted: list[dict[str, Any]]) -> None:
    """Each: `source` (in the guest), `target` (in the container, made if it is missing), `read_only`. The thread must end then."""
    with contextlib.ExitStack() as opened:
        trees = []
        for entry in wanted:
            tree = clone_tree(str(entry["source"]), read_only=bool(entry.get("read_only")))
            opened.callback(os.close, tree)
            trees.append((str(entry["target"]), tree))
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, root)
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, namespace)
        join_mounts(namespace)
        # parents before children, else a child's mount would be hidden
        for target, tree in sorted(trees, key=lambda item: item[0].rstrip("/").count("/")):
            place = _open_target(root, target, is_directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            try:
                move_mount(tree, place)
            finally:
                os.close(place)


def _open_target(root: int, target: str, *, is_directory: bool) -> int:
    above, _, name = target.rstrip("/").rpartition("/")
    make_directories(root, target if is_directory else above)
    if not is_directory:
        parent = open_in_root(root, above, os.O_PATH | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
        finally:
            os.close(parent)
    return open_in_root(root, target, os.O_PATH)
