"""Trees out of and into a container's root as tar streams, for cp, export, commit and diff. Runs in a thread, on pipes.

Every path is resolved by the kernel beneath the open root, links included, so neither an image's links nor a program that
renames things meanwhile lead anywhere else. Imported on first use: tarfile is the largest module that the agent needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from silo.guest.failures import Refused
from silo.guest.kernel import open_in_root
from silo.guest.paths import join, names_in, resolve_path
from silo.guest.places import open_parent
from silo.model.leftovers import is_leftover
from silo.model.windows_spelling import Spelling, entry_place

_COPY_BYTES = 262144
_MAXIMUM_EXTENDED_BYTES = 1 << 20
_GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."
_OPAQUE = "trusted.overlay.opaque"
_REDIRECT = "trusted.overlay.redirect"


class Writer:
    """One tree into a pipe. `layer`: whiteouts as OCI layers have them; `one_file_system`: mount points go in empty.

    `whole`: the overlay whose upper directory a layer is written from, and `lower`, what lies below it. A layer cannot say that a
    directory was moved, and the upper directory does not show what is in it: that comes last, from there.
    """

    def __init__(self, target: int, *, layer: bool, one_file_system: bool, whole: str = "", lower: str = "") -> None:
        self._target = target
        self._layer = layer
        self._one_file_system = one_file_system
        self._first_names: dict[tuple[int, int], str] = {}
        self._whole = whole
        self._lower = lower
        self._moved: list[str] = []

    @classmethod
    def of(cls, target: int, params: dict[str, Any]) -> Writer:
        """As a request of the protocol says."""
        layer, one_file_system = bool(params.get("layer")), bool(params.get("one_file_system"))
        whole, lower = str(params.get("whole", "")), str(params.get("lower", ""))
        return cls(target, layer=layer, one_file_system=one_file_system, whole=whole, lower=lower)

    def run(self, root: int, path: str, name: str) -> None:
        """`name`: how the top entry is called; "" leaves it out, and its children are named by themselves."""
        parent, leaf = open_parent(root, resolve_path(root, path))
        try:
            status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
            if name:
                self._entry(name, parent, leaf, status)
            if stat.S_ISDIR(status.st_mode):
                top = os.open(leaf, _DIRECTORY, dir_fd=parent)
                try:
                    self._tree(top, name, status.st_dev, [""])
                finally:
                    os.close(top)
        finally:
            os.close(parent)
        if self._moved:
            self._moved_trees(name)
        self._write(bytes(2 * tarfile.BLOCKSIZE))

    def _moved_trees(self, prefix: str) -> None:
        if not self._whole:
            raise Refused("invalid", f"{self._moved[0]!r} was moved, and `whole` is not given")
        root = os.open(self._whole, _DIRECTORY)
        try:
            self._one_file_system = True
            for directory in self._moved:
                self._write_empty(join(prefix, directory, ".wh..wh..opq"))
                self._tree(root, prefix, os.fstat(root).st_dev, [directory])
        finally:
            os.close(root)

    def _tree(self, top: int, prefix: str, device: int, pending: list[str]) -> None:
        while pending:
            directory = pending.pop()
            try:
                descriptor = open_in_root(top, directory, _DIRECTORY)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            try:
                below = list(self._directory(descriptor, directory, prefix, device))
            finally:
                os.close(descriptor)
            pending.extend(reversed(below))

    def _directory(self, descriptor: int, directory: str, prefix: str, device: int) -> Iterator[str]:
        """The entries of a directory; yields the directories among them."""
        if self._layer and _attribute(descriptor, _REDIRECT):
            self._moved.append(directory)
            return
        if self._layer and _attribute(descriptor, _OPAQUE) == b"y" and self._hides(directory):
            self._write_empty(join(prefix, directory, ".wh..wh..opq"))
        for name in sorted(os.listdir(descriptor)):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if self._layer and is_leftover(join("", directory, name), status):
                    continue
                if self._layer and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    self._write_empty(join(prefix, directory, f".wh.{name}"))
                    continue
                self._entry(join(prefix, directory, name), descriptor, name, status)
                if stat.S_ISDIR(status.st_mode) and (not self._one_file_system or status.st_dev == device):
                    yield join("", directory, name)

    def _hides(self, directory: str) -> bool:
        """overlayfs marks every directory that is made in one of the image."""
        if not self._lower:
            return True
        root = os.open(self._lower, _DIRECTORY)
        try:
            os.close(open_in_root(root, directory, os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            return False
        finally:
            os.close(root)
        return True

    def _entry(self, shown: str, parent: int, name: str, status: os.stat_result) -> None:
        info = tarfile.TarInfo(shown)
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._file(info, parent, name, status)
        elif kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
            self._write(_encode(info))
        elif kind == stat.S_IFLNK:
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink(name, dir_fd=parent)
            self._write(_encode(info))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            self._write(_encode(info))
        elif kind == stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
            self._write(_encode(info))

    def _file(self, info: tarfile.TarInfo, parent: int, name: str, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1:
            if key in self._first_names:
                info.type, info.linkname = tarfile.LNKTYPE, self._first_names[key]
                self._write(_encode(info))
                return
            self._first_names[key] = info.name
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            now = os.fstat(descriptor)
            if not stat.S_ISREG(now.st_mode):
                return
            info.size = now.st_size
            attributes: dict[str, str] = {}
            with contextlib.suppress(OSError):
                for attribute in os.listxattr(descriptor):
                    if attribute.startswith(("user.", "security.capability")):
                        value = os.getxattr(descriptor, attribute)
                        attributes[_XATTR + attribute] = value.decode("utf-8", "surrogateescape")
            info.pax_headers = attributes
            self._write(_encode(info))
            self._copy(descriptor, info.size)
        finally:
            os.close(descriptor)

    def _copy(self, descriptor: int, size: int) -> None:
        left = size
        while left > 0:
            data = os.read(descriptor, min(left, _COPY_BYTES))
            if not data:  # it shrank meanwhile; the header has promised
                data = bytes(min(left, _COPY_BYTES))
            self._write(data)
            left -= len(data)
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def _write_empty(self, name: str) -> None:
        self._write(_encode(tarfile.TarInfo(name)))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]


def _encode(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _attribute(descriptor: int, name: str) -> bytes:
    """Empty where there is none."""
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""


class _Header(tarfile.TarInfo):
    """Refuses headers that would make the reader hold without bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.size < 0 or (extended and self.size > _MAXIMUM_EXTENDED_BYTES):
            raise Refused("archive", "the archive holds a header of an impossible size")
        return super()._proc_member(archive)  # type: ignore[misc]


class Reader:
    """An archive from a pipe into a directory beneath a root."""

    def __init__(self, root: int, directory: str, *, keep_owners: bool, no_overwrite: bool) -> None:
        self._root = root
        self._directory = directory
        self._keep_owners = keep_owners
        self._no_overwrite = no_overwrite
        self._spelling = Spelling(lambda directory: names_in(root, directory), self._exists)

    def run(self, source: BinaryIO) -> None:
        self._directory = resolve_path(self._root, self._directory.rstrip("/") + "/")
        directories: list[tarfile.TarInfo] = []
        try:
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as archive:
                while (entry := archive.next()) is not None:
                    # the module keeps every header it has seen
                    archive.members = []  # type: ignore[attr-defined]
                    self._extract(archive, entry)
                    if entry.isdir():
                        directories.append(entry)
        except tarfile.TarError as error:
            raise Refused("archive", f"the archive is damaged or no tar: {error}") from error
        for entry in reversed(directories):
            # children change a directory's times
            with contextlib.suppress(OSError), self._parent(entry.name) as (parent, name):
                os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        # the writer of the pipe ends with its last padding
        while source.read(_COPY_BYTES):
            pass

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        path = self._place(name)
        above, _, last = path.rpartition("/")
        try:
            parent = open_in_root(self._root, above, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            from silo.guest.mounting import make_directories

            make_directories(self._root, above)
            parent = open_in_root(self._root, above, os.O_PATH | os.O_DIRECTORY)
        try:
            yield parent, "." if path == self._directory else last
        finally:
            os.close(parent)

    def _place(self, untrusted_name: str) -> str:
        """Where an entry goes, relative to the root."""
        top, name = entry_place(untrusted_name, self._directory)
        if "\0" in name or ".." in name.split("/"):
            raise Refused("archive", f"the archive's entry {untrusted_name!r} leads out of its directory")
        return self._spelling.resolve(join(top, *(part for part in name.split("/") if part not in ("", "."))))

    def _exists(self, path: str) -> bool:
        try:
            parent, name = open_parent(self._root, path)
        except OSError:
            return False
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        finally:
            os.close(parent)
        return True

    def _extract(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        with self._parent(entry.name) as (parent, name):
            if name == ".":
                if not entry.isdir():
                    raise Refused("archive", "an entry would replace the directory itself")
                return
            if not self._make_room(parent, name, entry):
                return
            self._make(archive, entry, parent, name)
        self._spelling.note(self._place(entry.name))

    def _make_room(self, parent: int, name: str, entry: tarfile.TarInfo) -> bool:
        """False: there is a directory already, or a link that leads to one, and all is well."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return True
        is_directory = stat.S_ISDIR(status.st_mode)
        if entry.isdir():
            if not is_directory and stat.S_ISLNK(status.st_mode):
                with contextlib.suppress(OSError):
                    os.close(open_in_root(self._root, self._place(entry.name), os.O_PATH | os.O_DIRECTORY))
                    is_directory = True
            if is_directory:
                return False
        if is_directory != entry.isdir() and self._no_overwrite:
            raise Refused("archive", f"cannot overwrite {entry.name!r} with something of another kind")
        if is_directory:
            import shutil

            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        return True

    def _make(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        if entry.isdir():
            os.mkdir(name, 0o700, dir_fd=parent)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            with self._parent(entry.linkname) as (other, other_name):
                os.link(other_name, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.isreg():
            self._write_file(archive, entry, parent, name)
        else:
            raise Refused("archive", f"the archive's entry {entry.name!r} is of a kind that is not taken")
        if self._keep_owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            # made a moment ago, but a program may have put a link in its place, which must not be followed
            descriptor = open_in_root(parent, name, os.O_PATH | os.O_NOFOLLOW)
            try:
                if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    os.chmod(f"/proc/self/fd/{descriptor}", entry.mode & 0o7777)  # noqa: PTH101
            finally:
                os.close(descriptor)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _write_file(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        source = archive.extractfile(entry)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as target:
            while source is not None and (data := source.read(_COPY_BYTES)):
                target.write(data)
            for key, value in entry.pax_headers.items():
                if key.startswith((f"{_XATTR}user.", f"{_XATTR}security.capability")):
                    target.flush()
                    with contextlib.suppress(OSError):
                        os.setxattr(target.fileno(), key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
