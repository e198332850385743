"""Directory trees as tar streams: a scratch as an OCI layer, a root as an export, a part of a root for `docker cp`.

Every directory and file is opened beneath the root without following links, so that a container that changes its files
meanwhile can make the archive odd but not make it hold anything from elsewhere. Roots must be opened with Links.REFUSE.
Entries come in the order of names.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from silo.host.beneath import Links, Root
from silo.host.overlay import is_moved, is_opaque, is_whiteout
from silo.model.leftovers import is_leftover
from silo.model.tar_format import END, build_empty_file, build_header, padding
from silo.storage.views import Setting, Shift, Shown

_READ_BYTES = 256 * 1024
_GONE = (errno.ENOENT, errno.ESTALE, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

Name = Callable[[str], str]


@dataclass(slots=True)
class _Walk:
    """One archive being written."""

    root: Root
    name_of: Name
    shift: Shift
    is_layer: bool = False
    device: int | None = None
    """Directories on other devices are mount points: they go in empty."""
    first_names: dict[tuple[int, int], str] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    """Directories whose contents this root does not show."""
    is_below: Callable[[str], bool] = lambda _: False
    """Whether the lower layers have something at a path."""


def write_layer(upper: Root, setting: Setting) -> Iterator[bytes]:
    """An upper directory as an uncompressed OCI layer.

    A layer cannot say that a directory of a lower one was moved: what is in it comes last, all of it, from the whole.
    """
    with _Below(setting.lower) as below:
        walk = _Walk(upper, lambda name: name, Shift(), is_layer=True, is_below=below.has)
        yield from _walk_tree(walk, "")
    if walk.moved:
        with setting.whole() as path, Root(path, links=Links.REFUSE) as root:
            rest = _Walk(root, walk.name_of, walk.shift, is_layer=True, device=os.fstat(root.fd).st_dev)
            for directory in walk.moved:
                yield build_empty_file(f"{directory}/{_OPAQUE}")
                yield from _walk_tree(rest, directory)
    yield END


class _Below(ExitStack):
    """The lower layers, shown when they are first asked for."""

    def __init__(self, lower: Shown) -> None:
        super().__init__()
        self._lower = lower
        self._root: Root | None = None

    def has(self, path: str) -> bool:
        if self._root is None:
            self._root = self.enter_context(Root(self.enter_context(self._lower()), links=Links.REFUSE))
        try:
            return self._root.status(path) is not None
        except OSError as error:
            # behind a link: it has a path of its own
            if error.errno == errno.ELOOP:
                return False
            raise


def write_root(root: Root, shift: Shift) -> Iterator[bytes]:
    """A whole root; other file systems mounted in it stay out."""
    walk = _Walk(root, lambda name: name, shift, device=os.fstat(root.fd).st_dev)
    yield from _walk_tree(walk, "")
    yield END


def write_part(root: Root, path: str, base: str, shift: Shift) -> Iterator[bytes]:
    """The file or tree at `path` (relative, resolved), its top entry named `base` (`/` for a whole root: names then begin
    with a slash, as Docker's client expects)."""
    prefix = "" if base == "/" else base

    def name_of(name: str) -> str:
        below = name[len(path) :].strip("/")
        return f"{prefix}/{below}" if below or not prefix else prefix

    walk = _Walk(root, name_of, shift)
    status = root.status(path)
    if status is not None:
        parent, name = (root.fd, ".") if not path else root.locate(path)
        yield from _entry(walk, path, parent, name, status)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk_tree(walk, path)
    yield END


def _walk_tree(walk: _Walk, top: str) -> Iterator[bytes]:
    """Everything beneath a directory, depth first."""
    pending = [top]
    while pending:
        directory = pending.pop()
        try:
            descriptor = walk.root.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _GONE:
                continue
            raise
        try:
            below = yield from _one_directory(walk, directory, descriptor)
        finally:
            os.close(descriptor)
        pending.extend(reversed(below))


def _one_directory(walk: _Walk, directory: str, descriptor: int) -> Generator[bytes, None, list[str]]:
    """The entries of a directory; answers the directories among them."""
    below: list[str] = []
    if walk.is_layer and directory:
        if is_moved(descriptor):
            walk.moved.append(directory)
            return below
        # overlayfs marks every directory that is made in one of the image
        if is_opaque(descriptor) and walk.is_below(directory):
            yield build_empty_file(f"{directory}/{_OPAQUE}")
    for name in sorted(os.listdir(descriptor)):
        path = f"{directory}/{name}" if directory else name
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if walk.is_layer and is_whiteout(status):
            yield build_empty_file(f"{directory}/{_WHITEOUT}{name}" if directory else _WHITEOUT + name)
            continue
        if stat.S_ISSOCK(status.st_mode) or (walk.is_layer and is_leftover(path, status)):
            continue
        yield from _entry(walk, path, descriptor, name, status)
        if stat.S_ISDIR(status.st_mode) and (walk.device is None or walk.device == status.st_dev):
            below.append(path)
    return below


def _entry(walk: _Walk, path: str, parent: int, name: str, status: os.stat_result) -> Iterator[bytes]:
    shown = walk.name_of(path)
    owner = (max(status.st_uid - walk.shift.uid, 0), max(status.st_gid - walk.shift.gid, 0))
    if stat.S_ISLNK(status.st_mode):
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError as error:
            # gone, or no link any more (EINVAL); some of /proc cannot be read by anybody else
            if error.errno in (*_GONE, errno.EINVAL, errno.EACCES):
                return
            raise
        yield build_header(shown, status, owner=owner, link=target)
    elif stat.S_ISREG(status.st_mode):
        first = shown
        if status.st_nlink > 1:
            first = walk.first_names.setdefault((status.st_dev, status.st_ino), shown)
        if first != shown:
            yield build_header(shown, status, owner=owner, link=first, hard_link=True)
            return
        yield from _file(shown, parent, name, owner)
    else:
        yield build_header(shown, status, owner=owner, attributes=_attributes(parent, name, status))


def _file(shown: str, parent: int, name: str, owner: tuple[int, int]) -> Iterator[bytes]:
    """Exactly as many bytes as the header says, whatever happens to the file meanwhile."""
    try:
        # nonblocking: what was a file may have become a pipe
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in _GONE:
            return
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        yield build_header(shown, status, owner=owner, attributes=file_attributes(descriptor))
        left = status.st_size
        while left:
            data = os.read(descriptor, min(left, _READ_BYTES)) or bytes(min(left, _READ_BYTES))
            left -= len(data)
            yield data
        yield padding(status.st_size)
    finally:
        os.close(descriptor)


def _attributes(parent: int, name: str, status: os.stat_result) -> dict[str, bytes]:
    """Of a directory; devices and pipes carry none worth keeping."""
    if not stat.S_ISDIR(status.st_mode):
        return {}
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in _GONE:
            return {}
        raise
    try:
        return file_attributes(descriptor)
    finally:
        os.close(descriptor)


def file_attributes(descriptor: int) -> dict[str, bytes]:
    """Users' attributes and file capabilities; the kernel's and overlayfs' own are of this machine."""
    kept = {}
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # /proc and the like
            return {}
        raise
    for name in names:
        if name == "security.capability":
            kept[name] = portable_capability(os.getxattr(descriptor, name))
        elif name.startswith("user."):
            kept[name] = os.getxattr(descriptor, name)
    return kept


def portable_capability(value: bytes) -> bytes:
    """File capabilities set within a user namespace (version 3, naming its root) as everybody's (version 2)."""
    if len(value) == 24:
        flags = struct.unpack_from("<I", value)[0] & 1
        return struct.pack("<I", 0x02000000 | flags) + value[4:20]
    return value
