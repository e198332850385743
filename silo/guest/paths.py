"""Paths beneath a container's root: resolved by the kernel, without case on a Windows drive, and described for the host."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from silo.guest.failures import Refused
from silo.guest.kernel import open_in_root
from silo.guest.places import open_parent
from silo.model.windows_paths import is_on_drive, resolve_case


def resolve_path(root: int, path: str) -> str:
    """The path without links, relative to the root. The last component is followed only where the path ends in `/` or `/.`, and
    must then be a directory, as in `docker cp`. On a Windows drive names are found without case."""
    clean = os.path.normpath("/" + path).strip("/")
    if is_on_drive("/" + clean):
        clean = resolve_case("/" + clean, lambda directory: names_in(root, directory)).strip("/")
    if path.endswith(("/", "/.")):
        return _real_path(root, clean, os.O_DIRECTORY)
    parent, _, name = clean.rpartition("/")
    return join(_real_path(root, parent, os.O_DIRECTORY), name)


def names_in(root: int, directory: str) -> list[str]:
    """Of a directory; empty where there is none."""
    try:
        descriptor = open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return os.listdir(descriptor)  # noqa: PTH208 - pathlib is not imported here
    finally:
        os.close(descriptor)


def _real_path(root: int, path: str, flags: int) -> str:
    """Where the kernel ends up, as /proc tells it of the opened descriptor and of the root's."""
    descriptor = open_in_root(root, path, os.O_PATH | flags)
    try:
        found, top = (os.readlink(f"/proc/self/fd/{number}") for number in (descriptor, root))  # noqa: PTH115
    finally:
        os.close(descriptor)
    if found == top:
        return ""
    above = top if top.endswith("/") else f"{top}/"
    if not found.startswith(above):
        raise Refused("invalid", f"the place of {path!r} cannot be told")
    return found.removeprefix(above)


def describe_path(root: int, path: str) -> dict[str, Any]:
    """lstat, and where a link leads: its text, and the place and status of what it means beneath the root."""
    path = resolve_path(root, path)
    parent, name = open_parent(root, path)
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        answer = {
            "name": path.rstrip("/").rpartition("/")[2] or "/",
            "mode": status.st_mode,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "link": "",
            "target": "",
            "target_mode": 0,
        }
        if stat.S_ISLNK(status.st_mode):
            link = os.readlink(name, dir_fd=parent)
            above = path.rpartition("/")[0]
            answer["link"], answer["target"] = link, os.path.normpath(link if link[:1] == "/" else f"/{above}/{link}")
            with contextlib.suppress(OSError, Refused):
                answer["target"] = "/" + _real_path(root, path, 0)
                target = open_in_root(root, path, os.O_PATH)
                answer["target_mode"] = os.fstat(target).st_mode
                os.close(target)
        return answer
    finally:
        os.close(parent)


def join(*parts: str) -> str:
    """A path of those parts that are not empty."""
    return "/".join(part for part in parts if part).replace("//", "/")
