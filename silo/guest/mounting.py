"""Mounts by mount(2) in this process: a forked mount costs ten times as much under emulation."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from silo.guest.failures import Refused
from silo.guest.kernel import MOUNT_FLAGS, mount, open_in_root, unmount

_KINDS = frozenset(
    {"", "bind", "erofs", "ext4", "overlay", "tmpfs", "9p", "proc", "sysfs", "devtmpfs", "cgroup2", "xfs"}
)


def make_mounts(wanted: list[dict[str, Any]]) -> None:
    """In order; what was made of a list that fails is taken away again."""
    made: list[str] = []
    try:
        for entry in wanted:
            made.append(_make(entry))
    except BaseException:
        for target in reversed(made):
            with contextlib.suppress(OSError):
                unmount(target, lazy=True)
        raise


def _make(entry: dict[str, Any]) -> str:
    """`type`, `source`, `target`, `options` (words: flags, the rest is the file system's), `mkdir` or `mkfile`, `beneath`."""
    kind = str(entry.get("type", ""))
    if kind not in _KINDS:
        raise Refused("invalid", f"file system {kind!r} is not one that this agent mounts")
    flags, data = _split_options(entry.get("options", []))
    if kind == "bind":
        flags, kind = flags | MOUNT_FLAGS["bind"], ""
    source, target = str(entry.get("source", "")), str(entry["target"])
    root = os.open(str(entry.get("beneath") or "/"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if entry.get("mkdir"):
            make_directories(root, target)
        elif entry.get("mkfile"):
            make_file(root, target)
        # whatever links an image holds: resolved beneath its root, and mounted on what was found
        place = open_in_root(root, target, os.O_PATH)
    finally:
        os.close(root)
    try:
        path = f"/proc/self/fd/{place}"
        real = os.readlink(path)  # noqa: PTH115
        mount(source, path, kind, flags & ~(MOUNT_FLAGS["ro"] if flags & MOUNT_FLAGS["bind"] else 0), data)
    finally:
        os.close(place)
    if flags & MOUNT_FLAGS["bind"] and flags & MOUNT_FLAGS["ro"]:
        # a bind takes its flags only afterwards
        try:
            mount("", real, "", flags | MOUNT_FLAGS["remount"], "")
        except OSError:
            unmount(real, lazy=True)
            raise
    return real


def _split_options(options: list[str]) -> tuple[int, str]:
    flags = 0
    data = []
    for word in options:
        if word in MOUNT_FLAGS:
            flags |= MOUNT_FLAGS[word]
        elif word not in ("rw", "defaults"):
            data.append(str(word))
    return flags, ",".join(data)


def make_directories(root: int, path: str) -> None:
    """mkdir -p beneath an open directory, through links as in a chroot."""
    done = ""
    above = os.dup(root)
    try:
        for name in path.split("/"):
            if name in ("", "."):
                continue
            if name == "..":
                raise Refused("invalid", f"{path!r} leads upwards")
            done = f"{done}/{name}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
            below = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
            os.close(above)
            above = below
    finally:
        os.close(above)


def make_file(root: int, path: str) -> None:
    """An empty file to mount on, where there is nothing."""
    parent, _, name = path.rstrip("/").rpartition("/")
    make_directories(root, parent)
    above = open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
    finally:
        os.close(above)
