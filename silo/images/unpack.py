"""Turn the tar of a layer into a directory that overlayfs takes as a lower layer.

Ownership stays as it is in the archive; whiteouts become character devices 0:0, opaque directories the attribute
trusted.overlay.opaque. Everything is made beneath the target (silo.host.beneath), whatever names and links the archive holds.

Decisions:
- Device nodes are left out with a warning: old images carry a static /dev, and inside a user namespace a node opens nothing.
- Of extended attributes those that mean something in a container are kept (user.*, file capabilities, POSIX ACLs);
  `trusted.overlay.*` of an archive would steer overlayfs itself, so no trusted attribute is taken over.
- A later entry replaces an earlier one of the same name, as with tar.
- Attributes of directories are set last: making files in them would change their times, set-group-id would change owners.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from silo.errors import InvalidRequest
from silo.host.beneath import Root
from silo.host.overlay import OPAQUE_ATTRIBUTE
from silo.host.unpacking import Unpacked, explain_entry
from silo.model import tarstream
from silo.model.tarstream import TarEntry, TarReader

WHITEOUT_PREFIX = ".wh."
_META_PREFIX = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
_XATTR_RECORD = "SCHILY.xattr."
_KEPT_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_MAX_ID = (1 << 32) - 2


def clean_name(untrusted_name: str) -> str:
    """A member's name → a path beneath the root without `.`, `..` and doubled slashes; "" is the root itself.

    Raises InvalidRequest when `..` leads out of the root.
    """
    name = untrusted_name
    if name.startswith("./"):
        name = name[2:]
    name = name.strip("/")
    if "//" not in name and "./" not in name and name != "." and not name.endswith("."):
        return name
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise InvalidRequest(f"the entry {untrusted_name!r} leads out of the root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class LayerUnpacker:
    """Applies the entries of one tar beneath one root."""

    def __init__(self, root: Root, *, check: Callable[[Unpacked], None]) -> None:
        self._root = root
        self._check = check
        """Called once an entry; raises when a limit is reached."""
        self._directories: dict[str, TarEntry] = {}
        self._whiteouts: set[str] = set()
        self.result = Unpacked()

    def unpack(self, reader: TarReader) -> Unpacked:
        """Raises InvalidRequest naming entry and offset, NoSpace, HostError."""
        result = self.result
        while (entry := reader.next()) is not None:
            result.entries += 1
            result.file_bytes += entry.size
            self._check(result)
            try:
                self._apply(entry, reader)
            except (OSError, InvalidRequest) as error:
                raise explain_entry(error, entry.name, reader.offset) from error
        self._finish_directories(reader)
        return result

    def _apply(self, entry: TarEntry, reader: TarReader) -> None:
        if entry.uid > _MAX_ID or entry.gid > _MAX_ID or entry.uid < 0 or entry.gid < 0:
            raise InvalidRequest(f"owner {entry.uid}:{entry.gid} is no user of Linux")
        path = clean_name(entry.name)
        parent_path, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT_PREFIX):
            self._apply_whiteout(parent_path, name)
            return
        kind = entry.kind
        if kind == tarstream.DIRECTORY:
            self._make_directory(path, entry)
            return
        if not path:
            raise InvalidRequest("it names the root, and is no directory")
        parent = self._parent(parent_path)
        if kind == tarstream.FILE:
            self._write_file(path, parent, name, entry, reader)
        elif kind == tarstream.SYMBOLIC_LINK:
            self._replace(path, lambda: os.symlink(entry.link, name, dir_fd=self._root.directory(parent_path)))
            self._finish_link(path, parent_path, name, entry)
        elif kind == tarstream.HARD_LINK:
            self._link(path, entry)
        elif kind == tarstream.FIFO:
            self._replace(path, lambda: self._root.make_node(path, stat.S_IFIFO | 0o600))
            self._root.set_owner(path, entry.uid, entry.gid)
            self._root.set_mode(path, entry.mode)
            self._root.set_times(path, self._atime(entry), entry.mtime_ns)
        elif kind in (tarstream.CHARACTER_DEVICE, tarstream.BLOCK_DEVICE):
            self.result.warn(f"device node {path} ({entry.device_major}:{entry.device_minor}) left out")
        else:
            raise InvalidRequest(f"it is of the unknown type {kind!r}")

    def _parent(self, path: str) -> int:
        try:
            return self._root.directory(path, create=True)
        except NotADirectoryError:
            parts = path.split("/")
            prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
            hidden = next((prefix for prefix in prefixes if prefix in self._whiteouts), None)
            if hidden is None:
                raise
            self._replace_whiteout(hidden)
            return self._root.directory(path, create=True)

    def _replace_whiteout(self, path: str) -> None:
        """The archive removes a directory of the layers below and makes a new one."""
        self._remove(path)
        self._root.make_directory(path, 0o755)
        self._root.set_attribute(path, OPAQUE_ATTRIBUTE, b"y")

    def _write_file(self, path: str, parent: int, name: str, entry: TarEntry, reader: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove(path)
            descriptor = self._root.open_write(path, 0o600)
        try:
            for piece in reader.data():
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, piece[written:])
            if entry.uid or entry.gid:
                os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)
            if entry.records:
                self._set_attributes(descriptor, entry)
            os.utime(descriptor, ns=(self._atime(entry), entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _make_directory(self, path: str, entry: TarEntry) -> None:
        if path:
            parent_path, _, name = path.rpartition("/")
            parent = self._parent(parent_path)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                status = self._root.status(path)
                if status is None or not stat.S_ISDIR(status.st_mode):
                    if path in self._whiteouts:
                        self._replace_whiteout(path)
                    else:
                        self._remove(path)
                        self._root.make_directory(path, 0o700)
        self._directories[path] = entry

    def _link(self, path: str, entry: TarEntry) -> None:
        target = clean_name(entry.link)
        if not target or target == path:
            raise InvalidRequest(f"it is a hard link to {entry.link!r}")
        if self._root.status(target) is None:
            raise InvalidRequest(f"it is a hard link to {entry.link!r}, which this layer does not hold")
        self._parent(path.rpartition("/")[0])
        self._replace(path, lambda: self._root.hardlink(target, path))

    def _finish_link(self, path: str, parent_path: str, name: str, entry: TarEntry) -> None:
        parent = self._root.directory(parent_path)
        if entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(self._atime(entry), entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        for attribute, value in self._kept_attributes(entry):
            self._root.set_attribute(path, attribute, value)

    def _apply_whiteout(self, parent_path: str, name: str) -> None:
        if name == _OPAQUE:
            self._parent(parent_path)
            self._root.set_attribute(parent_path, OPAQUE_ATTRIBUTE, b"y")
            return
        if name.startswith(_META_PREFIX):  # AUFS' own housekeeping, no part of the image
            return
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in ("", ".", ".."):
            raise InvalidRequest("it hides nothing that could be a file")
        path = f"{parent_path}/{hidden}" if parent_path else hidden
        self._parent(parent_path)
        status = self._root.status(path)
        if status is None:
            self._root.make_node(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))
            self._whiteouts.add(path)
        elif stat.S_ISDIR(status.st_mode):
            # hides what the layers below hold, never what this layer brings itself
            self._root.set_attribute(path, OPAQUE_ATTRIBUTE, b"y")

    def _replace(self, path: str, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._remove(path)
            make()

    def _remove(self, path: str) -> None:
        status = self._root.status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            below = path + "/"
            for known in [known for known in self._directories if known == path or known.startswith(below)]:
                del self._directories[known]
        self._whiteouts.discard(path)
        self._root.remove(path)

    def _finish_directories(self, reader: TarReader) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        for path, entry in reversed(self._directories.items()):
            try:
                descriptor = self._root.open(path, flags)
                try:
                    os.fchown(descriptor, entry.uid, entry.gid)
                    os.fchmod(descriptor, entry.mode)
                    if entry.records:
                        self._set_attributes(descriptor, entry)
                    os.utime(descriptor, ns=(self._atime(entry), entry.mtime_ns))
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise explain_entry(error, entry.name, reader.offset) from error

    def _kept_attributes(self, entry: TarEntry) -> list[tuple[str, bytes]]:
        kept = []
        for key, value in entry.records.items():
            if key.startswith(_XATTR_RECORD):
                name = key.removeprefix(_XATTR_RECORD)
                if name in _KEPT_ATTRIBUTES or (name.startswith("user.") and not name.startswith("user.overlay.")):
                    kept.append((name, value))
        return kept

    def _set_attributes(self, descriptor: int, entry: TarEntry) -> None:
        for name, value in self._kept_attributes(entry):
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self.result.warn(f"the file system cannot keep {name} of {entry.name}")

    @staticmethod
    def _atime(entry: TarEntry) -> int:
        return entry.mtime_ns if entry.atime_ns is None else entry.atime_ns
