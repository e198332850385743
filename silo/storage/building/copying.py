"""COPY and ADD: a file or tree of a source tree, as a tar that is extracted beneath an image's root like that of `docker cp`.

What Docker's BuildKit does with directories that exist is done here: their owners and modes stay. Those that are missing on the way
to the target are made, and belong to whom the copied files belong.
"""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from silo.errors import InvalidRequest
from silo.host.beneath import Root
from silo.model.build import CopyTarget, SourceItem, SourceKind
from silo.model.tar_format import END, build_header, padding
from silo.model.windows_paths import is_on_drive, resolve_case
from silo.storage.archives import explained_path, names_in
from silo.storage.building.plain import MAXIMUM_ENTRIES, open_plain
from silo.storage.building.tree import Excludes, walk
from silo.storage.extraction import Extraction
from silo.storage.streaming import Halt
from silo.storage.tar_tree import file_attributes
from silo.storage.views import Shift

_READ_BYTES = 1 << 20
_DIRECTORY_MODE = 0o755
_WHITEOUT = ".wh."


def copy_item(
    source: Path, item: SourceItem, root_path: Path, target: CopyTarget, excluded: Excludes | None, halt: Halt
) -> None:
    """Into the root at `root_path`. Blocks. Raises InvalidRequest, NoSpace, HostError, Unavailable (halted)."""
    with Root(root_path) as root, Root(source) as tree, explained_path(target.path):
        path = spelled(root, target.path)
        if item.kind is SourceKind.ARCHIVE:
            _unpack(tree, item, root, path, target, halt)
            return
        pieces = _Copy(tree, item, root, path, target, excluded, halt).pieces()
        stream = io.BufferedReader(_Pieces(pieces), _READ_BYTES)
        Extraction(root, "", Shift(), keep_owners=True, no_overwrite_dir_non_dir=False).run(stream)


def make_directories(root_path: Path, path: str, owner: tuple[int, int]) -> bool:
    """A directory with its parents; answers whether anything was missing. Blocks. Raises InvalidRequest."""
    with Root(root_path) as root, explained_path(path):
        missing = missing_directories(root, spelled(root, path))
        for name in missing:
            root.make_directory(name, _DIRECTORY_MODE)
            root.set_owner(name, *owner)
        return bool(missing)


def spelled(root: Root, path: str) -> str:
    """A path relative to the root, on `C:\\` as names are spelled on the disk."""
    if is_on_drive(path):
        path = resolve_case(path, lambda directory: names_in(root, directory))
    return path.strip("/")


def is_directory(root: Root, path: str) -> bool:
    """Whether a path leads to a directory, also by a link."""
    try:
        os.close(root.open(path or ".", os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def missing_directories(root: Root, path: str) -> list[str]:
    """The directories to make for `path`, parents first. Raises InvalidRequest where something else is in the way."""
    missing: list[str] = []
    while path and not is_directory(root, path):
        if root.status(path) is not None:
            raise InvalidRequest(f"cannot copy to non-directory: /{path}")
        missing.append(path)
        path = path.rpartition("/")[0]
    return missing[::-1]


def _unpack(tree: Root, item: SourceItem, root: Root, path: str, target: CopyTarget, halt: Halt) -> None:
    owner = target.owner or (0, 0)
    for name in missing_directories(root, path):
        root.make_directory(name, _DIRECTORY_MODE)
        root.set_owner(name, *owner)
    with open(tree.open(item.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        Extraction(
            root,
            path,
            Shift(),
            keep_owners=target.owner is None,
            owner=owner,
            no_overwrite_dir_non_dir=False,
            skip_devices=True,
            maximum_entries=MAXIMUM_ENTRIES,
        ).run(open_plain(file, root.path, halt.check))


class _Copy:
    """One item as a tar whose names are relative to the target's root."""

    def __init__(
        self,
        tree: Root,
        item: SourceItem,
        root: Root,
        path: str,
        target: CopyTarget,
        excluded: Excludes | None,
        halt: Halt,
    ) -> None:
        self._tree = tree
        self._item = item
        self._root = root
        self._path = path
        self._target = target
        self._excluded = excluded
        self._halt = halt
        self._first_names: dict[tuple[int, int], str] = {}

    def pieces(self) -> Iterator[bytes]:
        item, target = self._item, self._target
        is_tree = item.kind is SourceKind.DIRECTORY
        keeps_name = target.into and not is_tree
        directory = self._path if is_tree or target.into else self._path.rpartition("/")[0]
        for name in missing_directories(self._root, directory):
            yield self._directory(name)
        if is_tree:
            yield from self._tree_pieces(directory)
        else:
            name = f"{directory}/{item.name}".lstrip("/") if keeps_name else self._path
            if is_directory(self._root, name):
                raise InvalidRequest(f"cannot overwrite the directory /{name} with a file")
            status = self._tree.status(item.path)
            assert status is not None
            yield from self._entry(item.path, name, status)
        yield END

    def _tree_pieces(self, directory: str) -> Iterator[bytes]:
        top = self._item.path
        for path, status in walk(self._tree, top):
            self._halt.check()
            relative = path[len(top) :].lstrip("/")
            if self._excluded is not None and self._excluded(relative):
                continue
            name = f"{directory}/{relative}".lstrip("/")
            if stat.S_ISDIR(status.st_mode) and is_directory(self._root, name):
                continue
            yield from self._entry(path, name, status)

    def _directory(self, name: str) -> bytes:
        moment = int(time.time())
        status = os.stat_result((stat.S_IFDIR | _DIRECTORY_MODE, 0, 0, 1, 0, 0, 0, moment, moment, moment))
        return build_header(name, status, owner=self._target.owner or (0, 0))

    def _entry(self, path: str, name: str, status: os.stat_result) -> Iterator[bytes]:
        if name.rpartition("/")[2].startswith(_WHITEOUT):
            raise InvalidRequest(f"{path} cannot be copied", details=f"names that begin with {_WHITEOUT} hide files")
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode) or stat.S_ISFIFO(mode)):
            return  # devices and sockets are nobody's to copy
        owner = self._target.owner if self._target.owner is not None else (status.st_uid, status.st_gid)
        link = self._tree.read_link(path) if stat.S_ISLNK(mode) else ""
        if self._target.mode is not None and not link:
            changed = self._target.mode(stat.S_IMODE(mode), is_directory=stat.S_ISDIR(mode))
            mode = stat.S_IFMT(mode) | changed
        shown = _with_mode(status, mode)
        if not stat.S_ISREG(mode):
            yield build_header(name, shown, owner=owner, link=link)
            return
        first = self._first_names.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else name
        if first != name:
            yield build_header(name, shown, owner=owner, link=first, hard_link=True)
            return
        yield from self._file(path, name, shown, owner)

    def _file(self, path: str, name: str, status: os.stat_result, owner: tuple[int, int]) -> Iterator[bytes]:
        descriptor = self._tree.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            yield build_header(name, status, owner=owner, attributes=file_attributes(descriptor))
            left = status.st_size
            while left:
                self._halt.check()
                data = os.read(descriptor, min(left, _READ_BYTES))
                if not data:
                    raise InvalidRequest(f"{path} became shorter while it was copied")
                left -= len(data)
                yield data
            yield padding(status.st_size)
        finally:
            os.close(descriptor)


def _with_mode(status: os.stat_result, mode: int) -> os.stat_result:
    moment = int(status.st_mtime)
    return os.stat_result((mode, 0, 0, 1, 0, 0, status.st_size, moment, moment, moment))


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
