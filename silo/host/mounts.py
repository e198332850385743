"""Mounts: mount(2), the new mount API (detached trees, id mapping), and lookups beneath a root.

Everything works on the calling thread's mount namespace; nothing is spawned. Sources: mount_setattr(2), open_tree(2),
move_mount(2), openat2(2), and the kernel's `Documentation/filesystems/overlayfs.rst`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from silo.host import capabilities
from silo.host.syscalls import SYS_MOUNT_SETATTR, SYS_MOVE_MOUNT, SYS_OPEN_TREE, SYS_OPENAT2, libc, libc_quiet, syscall

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 0x2

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x00100000
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def mount(source: str, target: Path | str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    libc(
        "mount",
        os.fsencode(source) or None,
        os.fsencode(target),
        fstype.encode() or None,
        flags,
        data.encode() or None,
        subject=str(target),
    )


def unmount(target: Path | str, *, lazy: bool = True) -> bool:
    """Take a mount away; False when nothing is mounted there."""
    try:
        libc("umount2", os.fsencode(target), MNT_DETACH if lazy else 0, subject=str(target))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def set_propagation(target: Path | str, flags: int) -> None:
    """`flags` such as MS_REC | MS_SLAVE."""
    mount("", target, flags=flags)


def clone_tree(path: Path | str, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` (open_tree); the caller closes the descriptor."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return syscall(SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, what="open_tree", subject=str(path))


def set_idmap(tree: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Give a detached tree the id mapping of a user namespace. OSError EINVAL: the file system cannot."""
    attributes = _MountAttributes(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
    _set_attributes(tree, attributes, recursive=recursive)


def set_read_only(tree: int, *, recursive: bool = False) -> None:
    _set_attributes(tree, _MountAttributes(attr_set=_MOUNT_ATTR_RDONLY), recursive=recursive)


def set_private(tree: int) -> None:
    """No mount event goes into or out of a detached tree."""
    _set_attributes(tree, _MountAttributes(propagation=MS_PRIVATE), recursive=True)


def _set_attributes(tree: int, attributes: _MountAttributes, *, recursive: bool) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    syscall(SYS_MOUNT_SETATTR, tree, b"", flags, attributes, size, what="mount_setattr", subject=f"fd {tree}")


def attach(tree: int, target: Path | str) -> None:
    """Mount a detached tree at a path."""
    syscall(
        SYS_MOVE_MOUNT,
        tree,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
        what="move_mount",
        subject=str(target),
    )


def attach_at(tree: int, target: int) -> None:
    """Mount a detached tree on an open directory or file (O_PATH)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(SYS_MOVE_MOUNT, tree, b"", target, b"", flags, what="move_mount", subject=f"fd {target}")


@contextlib.contextmanager
def clone_idmapped(path: Path | str, user_namespace: int, *, recursive: bool = False) -> Iterator[int]:
    """A detached, id-mapped copy of the mount at `path`, closed at the end of the block."""
    tree = clone_tree(path, recursive=recursive)
    try:
        set_idmap(tree, user_namespace, recursive=recursive)
        yield tree
    finally:
        os.close(tree)


@contextlib.contextmanager
def overlay_layer(path: Path, user_namespace: int | None, place: Path | None) -> Iterator[str]:
    """A short name of a directory for an overlay's options, id-mapped if a user namespace is given.

    Kernels before 6.15 take no detached mount as a layer: there `place`, a directory, holds it until the overlay has cloned it.
    """
    with contextlib.ExitStack() as stack:
        if user_namespace is None:
            directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, directory)
        else:
            directory = stack.enter_context(clone_idmapped(path, user_namespace))
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
                attach(directory, place)
                stack.callback(unmount, place)
                directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, directory)
        yield f"/proc/self/fd/{directory}"


# A page, which is what mount(2) takes.
_MOST_OPTIONS = 4096


@contextlib.contextmanager
def file_system_identity(uid: int, gid: int) -> Iterator[None]:
    """In this thread create files as another user while keeping every capability.

    overlayfs remembers the mounter's identity: on an id-mapped upper directory uid 0 is unmapped, and the mount would
    silently be read-only (EOVERFLOW in the kernel log).
    """
    before = capabilities.load_thread()
    libc_quiet("setfsgid", gid)
    libc_quiet("setfsuid", uid)
    try:
        capabilities.set_thread(before)
        yield
    finally:
        libc_quiet("setfsuid", 0)
        libc_quiet("setfsgid", 0)
        capabilities.set_thread(before)


def mount_overlay(
    target: Path,
    *,
    lowers: Sequence[str],
    upper: str = "",
    work: str = "",
    volatile: bool = False,
    read_only: bool = False,
    owner: int = 0,
) -> None:
    """Mount an overlay; `lowers` topmost first. `owner`: the host uid that the upper directory's uid 0 is mapped to.

    Without `upper` the overlay is read-only and needs two lowers at least. A directory of a lower layer can be renamed: it becomes
    one that silo.host.overlay calls moved.
    """
    rest = [f"upperdir={upper}", f"workdir={work}", "redirect_dir=on"] if upper else ["redirect_dir=follow"]
    if volatile and upper:
        rest.append("volatile")
    with contextlib.ExitStack() as stack:
        data = ",".join([_lower_option(lowers), *rest])
        if len(data) >= _MOST_OPTIONS:
            # many layers fit by descriptors, whose names are short
            data = ",".join([_lower_option([stack.enter_context(_by_descriptor(path)) for path in lowers]), *rest])
        if len(data) >= _MOST_OPTIONS:
            raise OSError(errno.E2BIG, "too many image layers for one overlay mount", str(target))
        flags = MS_NODEV | (MS_RDONLY if read_only else 0)
        with file_system_identity(owner, owner) if owner else contextlib.nullcontext():
            mount("overlay", target, "overlay", flags, data)


def _lower_option(lowers: Sequence[str]) -> str:
    return "lowerdir=" + ":".join(text.replace("\\", "\\\\").replace(":", "\\:") for text in lowers)


@contextlib.contextmanager
def _by_descriptor(path: str) -> Iterator[str]:
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}"
    finally:
        os.close(directory)


def open_beneath(root: int | Path, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process with that root would (links included), never leaving `root` (openat2).

    Raises OSError; the caller closes the descriptor.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=_RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    directory = root if isinstance(root, int) else os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        size = ctypes.sizeof(how)
        return syscall(SYS_OPENAT2, directory, os.fsencode(path), how, size, what="openat2", subject=path)
    finally:
        if not isinstance(root, int):
            os.close(directory)


def read_beneath(root: int | Path, path: str, *, maximum_bytes: int) -> bytes:
    """The regular file at `path` beneath `root`; OSError EFBIG when it is larger than allowed, EINVAL when not a file."""
    descriptor = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        if not os.path.isfile(f"/proc/self/fd/{descriptor}"):  # noqa: PTH113 - by descriptor, no second lookup by name
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = file.read(maximum_bytes + 1)
    if len(data) > maximum_bytes:
        raise OSError(errno.EFBIG, "file too large", path)
    return data


def list_mount_points(beneath: Path) -> tuple[str, ...]:
    """Mount points of this namespace beneath a directory, deepest last."""
    prefix = f"{beneath}/"
    found = []
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if point == str(beneath) or point.startswith(prefix):
            found.append(point)
    return tuple(found)


def is_mount_point(path: Path) -> bool:
    return str(path) in list_mount_points(path)
