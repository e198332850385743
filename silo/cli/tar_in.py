"""Unpack what a container sent. The container is not trusted: whatever its archive says, nothing outside of the target is touched.

Every path is walked by directory descriptors that follow no link; links that lead out of what is copied, device nodes, sockets and
set-user-id bits are left out, and `refused` says which.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tarfile

from silo.cli.failure import Failure
from silo.cli.table import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK_BYTES = 256 * 1024


class PieceFile:
    """A file of bytes that come in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.size = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        self.size += len(data)
        return data


def split_member(untrusted_name: str) -> list[str]:
    """Components of a member's name. Raises Failure for one that climbs."""
    parts = [part for part in untrusted_name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in untrusted_name:
        raise Failure(f"the container's archive holds a path that leaves it: {clean(untrusted_name)}")
    return parts


def link_stays_inside(parts: list[str], target: str) -> bool:
    """Whether a link at `parts` (below the root of the copy) leads to something below that root, too."""
    if target.startswith("/"):
        return False
    path = posixpath.normpath(posixpath.join("/".join(parts[:-1]), target))
    return not (path == ".." or path.startswith("../"))


class Unpacker:
    """Into `directory`, under `name` (empty: the contents directly). `archive`: keep owners as well as modes and times."""

    def __init__(self, directory: str, name: str, *, archive: bool = False) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = name
        self._archive = archive
        self._first: list[str] | None = None
        self._times: list[tuple[list[str], tarfile.TarInfo]] = []
        self.refused: list[str] = []

    def unpack(self, source: IO[bytes] | PieceFile) -> None:
        try:
            with tarfile.open(fileobj=source, mode="r|") as tar:  # type: ignore[call-overload]  # it only needs read
                for member in tar:
                    self._take(tar, member)
            for parts, member in reversed(self._times):
                self._finish_directory(parts, member)
        except tarfile.TarError as error:
            raise Failure(f"the container's archive is damaged: {error}") from None
        finally:
            os.close(self._root)

    def _place(self, untrusted_name: str) -> list[str]:
        """Where a member goes: the archive's first name is the copied thing itself."""
        parts = split_member(untrusted_name)
        if self._first is None:
            self._first = parts
        if parts[: len(self._first)] != self._first:
            raise Failure(f"the container's archive holds something that was not asked for: {clean(untrusted_name)}")
        rest = parts[len(self._first) :]
        return [self._name, *rest] if self._name else rest

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = self._place(member.name)
        if not parts:
            if not member.isdir():
                raise Failure("the container's archive is not of a directory")
            return
        with self._parent(parts) as parent:
            name = parts[-1]
            if member.isdir():
                self._make_directory(parent, name)
                self._times.append((parts, member))
            elif member.isreg():
                self._write_file(tar, parent, name, member)
            elif member.issym():
                self._make_link(parent, parts, member)
            elif member.islnk():
                self._copy_linked(parent, name, member)
            else:
                self.refused.append(f"{clean(member.name)}: device nodes, pipes and sockets are not copied")

    def _parent(self, parts: list[str]) -> contextlib.AbstractContextManager[int]:
        return _opened(self._open_below(parts[:-1]))

    def _open_below(self, parts: list[str]) -> int:
        descriptor = os.dup(self._root)
        for part in parts:
            try:
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=descriptor)
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except OSError:
                raise Failure(f"{clean('/'.join(parts))}: a link or a file is where a directory should be") from None
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def _make_directory(self, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            # Raises if it is anything but a directory.
            try:
                os.close(os.open(name, _DIRECTORY, dir_fd=parent))
            except OSError:
                raise Failure(f"cannot overwrite {clean(name)}, which is no directory, with a directory") from None

    def _remove_old(self, parent: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            raise Failure(f"cannot overwrite the directory {clean(name)} with a file") from None

    def _write_file(self, tar: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        self._remove_old(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = tar.extractfile(member)
        assert source is not None
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            while data := source.read(CHUNK_BYTES):
                file.write(data)
            file.flush()
            self._finish(file.fileno(), member)

    def _finish(self, descriptor: int, member: tarfile.TarInfo) -> None:
        if self._archive:
            os.chown(descriptor, member.uid, member.gid)
        os.chmod(descriptor, member.mode & 0o777)
        os.utime(descriptor, (member.mtime, member.mtime))

    def _finish_directory(self, parts: list[str], member: tarfile.TarInfo) -> None:
        """After its contents: a read-only directory could not be filled, and filling changes its time."""
        with _opened(self._open_below(parts)) as descriptor:
            self._finish(descriptor, member)

    def _make_link(self, parent: int, parts: list[str], member: tarfile.TarInfo) -> None:
        below = parts[1:] if self._name else parts
        if not link_stays_inside(below, member.linkname):
            shown = f"{clean(member.name)} -> {clean(member.linkname)}"
            self.refused.append(f"{shown}: the link leads out of what is copied")
            return
        self._remove_old(parent, parts[-1])
        os.symlink(member.linkname, parts[-1], dir_fd=parent)

    def _copy_linked(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """A hard link to a member that was unpacked before."""
        target = self._place(member.linkname)
        if not target:
            raise Failure(f"the container's archive is damaged: {clean(member.name)} is a link to a directory")
        self._remove_old(parent, name)
        with self._parent(target) as directory:
            try:
                os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                self.refused.append(f"{clean(member.name)}: the file it is a link to was not copied")


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
