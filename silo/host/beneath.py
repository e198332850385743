"""Make and read files strictly beneath a directory, whatever names and links an untrusted archive or container holds.

`Root` keeps a descriptor of the directory; every path is resolved by the kernel relative to it (openat2), so there is no gap
between checking and using, even while a container renames things underneath. Only the last component is then named, by
itself, relative to the descriptor of its parent, and is never followed.

Two ways of treating symbolic links in the middle of a path:
- `Links.IN_ROOT`: followed as in a chroot; absolute targets and `..` stay beneath the root. Right for `docker cp` and for layers,
  where `lib -> usr/lib` followed by `lib/x` is common.
- `Links.REFUSE`: any link on the way is an error (ELOOP). Right where nobody had a reason to put one.

    with Root(target) as root:
        descriptor = root.open_write("etc/motd", 0o644)
        root.set_owner("etc/motd", 0, 0)

Failures are OSError with errno (EXDEV or ELOOP: the path would leave the root or meets a refused link); a name that cannot be a
file's name is InvalidRequest.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import itertools
import os
import stat
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

from silo.errors import InvalidRequest

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_SYS_OPENAT2 = 437

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Enough for the directories an archive works in at one time, far below any limit of open files.
_CACHED_DIRECTORIES = 64
# The kernel answers EAGAIN when a rename anywhere on the host raced with a `..` of this path.
_RETRIES = 32


class Links(enum.Enum):
    """What happens at a symbolic link on the way to the last component."""

    IN_ROOT = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    REFUSE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, *, flags: int, mode: int = 0, resolve: int) -> int:
    """The system call; raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise InvalidRequest(f"the path {path!r} holds a NUL byte")
    for _ in range(_RETRIES):
        descriptor: int = _libc.syscall(_SYS_OPENAT2, directory, encoded, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def split_path(path: str) -> tuple[str, str]:
    """`/a/b/` → ("a", "b"); the last component must be a plain name."""
    parent, _, name = path.strip("/").rpartition("/")
    if name in ("", ".", "..") or "\0" in path:
        raise InvalidRequest(f"{path!r} does not name a file")
    return parent, name


class Root:
    """A directory and everything beneath it. Not for use by several threads at once."""

    def __init__(self, path: Path, *, links: Links = Links.IN_ROOT) -> None:
        self.path = path
        self._resolve = links.value
        self._fd = -1
        self._cache: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Root:
        self._fd = os.open(self.path, _DIRECTORY)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.forget_directories()
        os.close(self._fd)
        self._fd = -1

    @property
    def fd(self) -> int:
        """Borrowed; an O_PATH descriptor of the root."""
        return self._fd

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """openat2 beneath the root; the caller closes. The last component is followed unless flags hold O_NOFOLLOW."""
        return openat2(self._fd, path.lstrip("/") or ".", flags=flags, mode=mode, resolve=self._resolve)

    def directory(self, path: str, *, create: bool = False, mode: int = 0o755) -> int:
        """A borrowed O_PATH descriptor of a directory, good until the next call; `create` makes what is missing of it."""
        path = path.strip("/")
        if not path:
            return self._fd
        cached = self._cache.get(path)
        if cached is not None:
            self._cache.move_to_end(path)
            return cached
        try:
            descriptor = self.open(path, _DIRECTORY)
        except FileNotFoundError:
            if not create:
                raise
            self._make_missing(path, mode)
            descriptor = self.open(path, _DIRECTORY)
        self._cache[path] = descriptor
        if len(self._cache) > _CACHED_DIRECTORIES:
            _, oldest = self._cache.popitem(last=False)
            os.close(oldest)
        return descriptor

    def _make_missing(self, path: str, mode: int) -> None:
        missing = [path]
        while True:
            parent, name = split_path(missing[-1])
            try:
                above = os.dup(self._fd) if not parent else self.open(parent, _DIRECTORY)
                break
            except FileNotFoundError:
                missing.append(parent)
        try:
            for lacking in reversed(missing):
                name = split_path(lacking)[1]
                # it may exist as a link that leads nowhere, or someone was faster: opening it tells
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=above)
                below = self.open(lacking, _DIRECTORY)
                os.close(above)
                above = below
        finally:
            os.close(above)

    def forget_directories(self) -> None:
        """Drop cached descriptors: needed when a directory was removed or replaced by other means than this object."""
        while self._cache:
            _, descriptor = self._cache.popitem()
            os.close(descriptor)

    def locate(self, path: str, *, create_parents: bool = False) -> tuple[int, str]:
        """(borrowed descriptor of the parent, last component): for calls that take dir_fd."""
        parent, name = split_path(path)
        return self.directory(parent, create=create_parents), name

    def make_directory(self, path: str, mode: int, *, exist_ok: bool = False) -> bool:
        """Answers whether it was made; an existing directory is left as it is. A link to a directory is no directory."""
        parent, name = self.locate(path)
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            if exist_ok and stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return False
            raise
        return True

    def open_write(self, path: str, mode: int) -> int:
        """A new regular file, opened for writing; the caller closes. An existing one is an error, never written to."""
        parent, name = self.locate(path)
        return os.open(name, _NEW_FILE, mode, dir_fd=parent)

    def symlink(self, target: str, path: str) -> None:
        """`target` is stored as it is: only later resolution beneath a root gives it meaning."""
        parent, name = self.locate(path)
        os.symlink(target, name, dir_fd=parent)

    def hardlink(self, existing: str, path: str) -> None:
        """Both beneath the root; neither last component is followed."""
        source, source_name = self.locate(existing)
        source = os.dup(source)  # the second look-up may evict the first from the cache
        try:
            parent, name = self.locate(path)
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def make_node(self, path: str, mode: int, device: int = 0) -> None:
        """A fifo, socket or device; `mode` holds the type bits."""
        parent, name = self.locate(path)
        os.mknod(name, mode, device, dir_fd=parent)

    def status(self, path: str) -> os.stat_result | None:
        """Of the last component itself (a link is not followed); None when it or a parent does not exist."""
        if not path.strip("/"):
            return os.fstat(self._fd)
        try:
            parent, name = self.locate(path)
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_link(self, path: str) -> str:
        parent, name = self.locate(path)
        return os.readlink(name, dir_fd=parent)

    def names(self, path: str) -> list[str]:
        """The entries of a directory, sorted; a link as the last component is followed beneath the root."""
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        """A file, link or whole tree; links inside are removed, not followed. Nothing there is fine."""
        try:
            parent, name = self.locate(path)
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self.forget_directories()
                parent, name = self.locate(path)
                remove_tree(name, parent)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """Of the last component itself; clears set-uid bits, so set the mode after it."""
        if not path.strip("/"):
            os.chown(self._proc_path(path), uid, gid)
            return
        parent, name = self.locate(path)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)

    def set_mode(self, path: str, mode: int) -> None:
        """Permission bits; a link has none, so the caller leaves links out."""
        # The check and the change name the same inode: fchmodat cannot refuse links, a descriptor's /proc path cannot change.
        descriptor = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            Path(f"/proc/self/fd/{descriptor}").chmod(mode)
        finally:
            os.close(descriptor)

    def set_times(self, path: str, accessed_ns: int, modified_ns: int) -> None:
        if not path.strip("/"):
            os.utime(self._proc_path(path), ns=(accessed_ns, modified_ns))
            return
        parent, name = self.locate(path)
        os.utime(name, ns=(accessed_ns, modified_ns), dir_fd=parent, follow_symlinks=False)

    def set_attribute(self, path: str, name: str, value: bytes) -> None:
        """An extended attribute, of the last component itself."""
        os.setxattr(self._proc_path(path), name, value, follow_symlinks=not path.strip("/"))

    def attributes(self, path: str) -> dict[str, bytes]:
        """Extended attributes of the last component itself."""
        location = self._proc_path(path)
        follow = not path.strip("/")
        return {
            name: os.getxattr(location, name, follow_symlinks=follow)
            for name in os.listxattr(location, follow_symlinks=follow)
        }

    def _proc_path(self, path: str) -> str:
        """For calls without dir_fd: the parent by its descriptor, the last component by name (never followed by callers)."""
        if not path.strip("/"):
            return f"/proc/self/fd/{self._fd}"
        parent, name = self.locate(path)
        return f"/proc/self/fd/{parent}/{name}"


def remove_tree(name: str, parent: int) -> None:
    """Remove a directory of any depth without recursion and without following links; `parent` is a directory descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    top = os.open(name, flags, dir_fd=parent)
    stack: list[tuple[str, int, list[str]]] = []
    try:
        stack.append((name, top, _remove_files(top)))
        while stack:
            current, descriptor, pending = stack[-1]
            if not pending:
                stack.pop()
                os.close(descriptor)
                os.rmdir(current, dir_fd=stack[-1][1] if stack else parent)
                continue
            below = pending.pop()
            if len(stack) >= _CACHED_DIRECTORIES:
                # a hostile tree could be deep enough to use up all descriptors: bring the deep part up, go on there
                stack[0][2].append(_lift(below, descriptor, top))
                continue
            opened = os.open(below, flags, dir_fd=descriptor)
            stack.append((below, opened, []))
            stack[-1][2].extend(_remove_files(opened))
    finally:
        for _, descriptor, _ in stack:
            os.close(descriptor)


def _remove_files(descriptor: int) -> list[str]:
    """Delete everything in a directory that is no directory; answers the names of those."""
    with os.scandir(descriptor) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=descriptor)
    return [name for name, is_directory in found if is_directory]


def _lift(name: str, parent: int, top: int) -> str:
    """Move a deep directory up into `top` under a free name."""
    for serial in itertools.count():
        try:
            os.rename(name, f".lifted-{serial}", src_dir_fd=parent, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return f".lifted-{serial}"
    raise AssertionError("unreachable")
