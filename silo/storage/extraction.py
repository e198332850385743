"""`docker cp` into a container: extract a tar that nobody vouches for beneath a container's root.

Entries are written through Root: nothing lands outside the container's root, whatever the archive or the container holds. Links
that the container has are followed as in Docker (`lib -> usr/lib`); links that the archive itself brought are not, devices and
names with `..` are refused. In a running container's root everything is made as that container's root user.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import io
import lzma
import os
import stat
import tarfile
import zlib
from pathlib import Path
from tarfile import EmptyHeaderError, EOFHeaderError, HeaderError, TarFile  # type: ignore[attr-defined]
from typing import BinaryIO, Self

from silo.errors import InvalidRequest, SiloError
from silo.host import mounts
from silo.host.beneath import Root
from silo.host.durable import host_error
from silo.model.tar_format import XATTR_PREFIX
from silo.model.windows_spelling import Spelling, entry_place
from silo.storage.archives import explained_path, names_in, resolve
from silo.storage.views import Shift

_MAXIMUM_EXTENDED_BYTES = 1 << 20
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DIRECTORY_MODE = 0o755
_COPY_BYTES = 1 << 20
_LATEST_NS = 1 << 62


class _Header(tarfile.TarInfo):
    """Refuses headers that would make the reader hold or write without bound."""

    def _proc_member(self, tarfile: TarFile) -> Self:
        """The module's own hook for subclasses. Not frombuf(), which Debian's patched Pythons do not call."""
        if self.type in _EXTENDED and self.size > _MAXIMUM_EXTENDED_BYTES:
            raise InvalidRequest(f"the archive holds an extended header of {self.size} bytes")
        if self.size < 0:
            raise InvalidRequest("the archive is damaged: a negative size")
        return super()._proc_member(tarfile)  # type: ignore[misc,no-any-return]

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        """The module takes damage after the first entry for the end of the archive."""
        try:
            return super().fromtarfile(tarfile)
        except (EOFHeaderError, EmptyHeaderError):
            raise
        except HeaderError as error:
            raise InvalidRequest("the archive is damaged", details=str(error)) from error


class _Found(enum.Enum):
    """What is at an entry's place."""

    NOTHING = enum.auto()
    DIRECTORY = enum.auto()
    LINK = enum.auto()
    """One of the container's own that leads to a directory."""


class Extraction:
    """One archive into one directory of a container."""

    def __init__(
        self,
        root: Root,
        directory: str,
        shift: Shift,
        *,
        keep_owners: bool,
        no_overwrite_dir_non_dir: bool,
        owner: tuple[int, int] = (0, 0),
        skip_devices: bool = False,
        maximum_entries: int = 0,
    ) -> None:
        """`owner`: whose everything becomes where owners are not kept. `maximum_entries` 0 is any number."""
        self._root = root
        self._owner = owner
        self._skip_devices = skip_devices
        self._entries_left = maximum_entries or -1
        self._directory = directory
        self._shift = shift
        self._keep_owners = keep_owners
        self._no_overwrite = no_overwrite_dir_non_dir
        self._spelling = Spelling(
            lambda directory: names_in(root, directory), lambda path: root.status(path) is not None
        )
        self._own_links: set[str] = set()
        self._directories: list[tuple[str, tarfile.TarInfo]] = []

    def run(self, source: BinaryIO) -> None:
        """Raises InvalidRequest (naming the entry), NoSpace, HostError."""
        try:
            with tarfile.open(fileobj=source, mode="r|*", tarinfo=_Header) as archive:
                while (entry := archive.next()) is not None:
                    # the module keeps every header it has seen
                    archive.members = []  # type: ignore[attr-defined]
                    if not self._entries_left:
                        raise InvalidRequest("the archive holds too many entries")
                    self._entries_left -= 1
                    if not (self._skip_devices and entry.isdev() and not entry.isfifo()):
                        self._extract(archive, entry)
            # children change a directory's times
            for path, entry in reversed(self._directories):
                self._finish(path, entry)
        except (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
            raise InvalidRequest("the archive is damaged or no tar", details=str(error)) from error

    def _extract(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = self._place(entry.name)
        try:
            found = self._make_room(path, entry)
            if not entry.isdir():
                self._make(archive, path, entry)
                self._finish(path, entry)
            elif found is not _Found.LINK:
                if found is _Found.NOTHING:
                    self._root.make_directory(path, _DIRECTORY_MODE)
                self._directories.append((path, entry))
            self._spelling.note(path)
        except OSError as error:
            raise _explained_entry(error, entry.name) from error

    def _place(self, untrusted_name: str) -> str:
        """Where an entry goes, relative to the container's root."""
        top, name = entry_place(untrusted_name, self._directory)
        if "\0" in name or ".." in name.split("/"):
            raise InvalidRequest(f"the archive's entry {untrusted_name!r} leads out of its directory")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        path = "/".join([*([top] if top else []), *parts])
        path = self._spelling.resolve(path)
        self._check_own_links(path, untrusted_name)
        return path

    def _check_own_links(self, path: str, name: str) -> None:
        parent = path.rpartition("/")[0]
        while self._own_links and len(parent) > len(self._directory):
            if parent in self._own_links:
                raise InvalidRequest(f"the archive's entry {name!r} lies behind a link of the same archive")
            parent = parent.rpartition("/")[0]

    def _make_room(self, path: str, entry: tarfile.TarInfo) -> _Found:
        """Remove what an entry takes the place of; answers what stays. Makes missing parents."""
        if not path or path == self._directory:
            if not entry.isdir():
                raise InvalidRequest(f"the archive's entry {entry.name!r} would replace the directory itself")
            return _Found.DIRECTORY
        self._root.locate(path, create_parents=True)
        status = self._root.status(path)
        if status is None:
            return _Found.NOTHING
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and entry.isdir():
            return _Found.DIRECTORY
        if is_directory and self._no_overwrite:
            raise InvalidRequest(f'cannot overwrite directory "/{path}" with non-directory "{entry.name}"')
        if entry.isdir() and stat.S_ISLNK(status.st_mode) and self._leads_to_directory(path):
            return _Found.LINK
        if entry.isdir() and self._no_overwrite:
            raise InvalidRequest(f'cannot overwrite non-directory "/{path}" with directory "{entry.name}"')
        self._root.remove(path)
        # the path may have been a link to a directory that the cache knows
        self._root.forget_directories()
        self._own_links.discard(path)
        return _Found.NOTHING

    def _leads_to_directory(self, path: str) -> bool:
        """A link of the container's own that an archived directory is merged into, as tar's --keep-directory-symlink does."""
        if path in self._own_links:
            return False
        try:
            os.close(self._root.open(path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def _make(self, archive: tarfile.TarFile, path: str, entry: tarfile.TarInfo) -> None:
        if entry.issym():
            self._root.symlink(entry.linkname, path)
            self._own_links.add(path)
        elif entry.islnk():
            self._root.hardlink(self._place(entry.linkname), path)
        elif entry.isfifo():
            self._root.make_node(path, stat.S_IFIFO | 0o600)
        elif entry.isdev():
            raise InvalidRequest(
                f"the archive's entry {entry.name!r} is a device", hint="devices are given by --device"
            )
        elif entry.issparse():
            raise InvalidRequest(
                f"the archive stores {entry.name!r} as a sparse file", hint="write it without --sparse"
            )
        elif entry.isreg():
            self._write_file(archive, path, entry)
        else:
            raise InvalidRequest(f"the archive's entry {entry.name!r} is of an unknown type {entry.type!r}")

    def _write_file(self, archive: tarfile.TarFile, path: str, entry: tarfile.TarInfo) -> None:
        source = archive.extractfile(entry)
        assert source is not None
        descriptor = self._root.open_write(path, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as target:
                left = entry.size
                while left:
                    data = source.read(min(left, _COPY_BYTES))
                    if not data:
                        raise InvalidRequest(f"the archive ends within {entry.name!r}")
                    left -= len(data)
                    _write_all(target, data)
        except BaseException:
            with contextlib.suppress(OSError):
                self._root.remove(path)
            raise

    def _finish(self, path: str, entry: tarfile.TarInfo) -> None:
        """Owner, attributes, mode, times; a hard link shares its target's."""
        if entry.islnk() or not path:
            return
        try:
            uid, gid = (entry.uid, entry.gid) if self._keep_owners else self._owner
            self._root.set_owner(path, uid + self._shift.uid, gid + self._shift.gid)
            self._set_attributes(path, entry)
            if not entry.issym():
                self._root.set_mode(path, entry.mode & 0o7777)
            moment = min(max(int(entry.mtime * 1_000_000_000), 0), _LATEST_NS)
            self._root.set_times(path, moment, moment)
        except OSError as error:
            raise _explained_entry(error, entry.name) from error

    def _set_attributes(self, path: str, entry: tarfile.TarInfo) -> None:
        for key, value in entry.pax_headers.items():
            name = key.removeprefix(XATTR_PREFIX)
            if name != key and (name.startswith("user.") or name == "security.capability"):
                try:
                    self._root.set_attribute(path, name, value.encode("utf-8", "surrogateescape"))
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                        raise


def extract_archive(
    root_path: Path,
    path: str,
    source: io.BufferedReader,
    shift: Shift,
    *,
    no_overwrite_dir_non_dir: bool,
    keep_owners: bool,
) -> None:
    """Extract into the directory at `path`, which must exist. `keep_owners`: ids as in the archive, else the container's root.

    Blocks. Raises NotFound, InvalidRequest, NoSpace, HostError.
    """
    # overlayfs makes files as the thread's user, who must exist in a running container's id mapping
    identity = mounts.file_system_identity(shift.uid, shift.gid) if shift != Shift() else contextlib.nullcontext()
    with Root(root_path) as root, identity:
        directory = resolve(root, path.rstrip("/") + "/")
        Extraction(
            root, directory, shift, keep_owners=keep_owners, no_overwrite_dir_non_dir=no_overwrite_dir_non_dir
        ).run(source)
        with explained_path(path):
            while source.read(_COPY_BYTES):
                pass


def _write_all(target: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def _explained_entry(error: OSError, name: str) -> SiloError:
    if error.errno in (
        errno.ELOOP,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EEXIST,
    ):
        return InvalidRequest(f"the archive's entry {name!r} cannot be extracted", details=os.strerror(error.errno))
    return host_error(error, f"cannot write {name}")
