"""Turn the tar of a Windows layer into a directory that overlayfs takes as a lower layer above others.

What Windows does when it shows the layers together, names without case above all, is done here once: every member lands on the
spelling that the layers below have, and a link means the same to Linux. So what comes out depends on the layers below.

Decisions:
- Owners: NTFS permissions are not enforced. A new file belongs to the owner of its directory, or to ContainerUser where its
  descriptor says so; a directory that is there below keeps owner and mode, so that a user's profile stays the user's.
- Hard links to files of the layers below are copies, made after all else. Such a target may be missing, because the base of an
  image is Silo's own: then the link is left out with a warning.
- A whiteout of what is not there below is not made: a directory that only one layer has would show it.
- Of two members whose names differ in case only, the last wins.
- Links and the times of directories come last, in this order.

Order and rules of links: microsoft/hcsshim, internal/wclayer/legacy.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from silo.errors import InvalidRequest, Unsupported
from silo.host.beneath import Links, Root
from silo.host.durable import host_error
from silo.host.unpacking import Unpacked, explain_entry
from silo.model import tarstream
from silo.model.tarstream import TarEntry, TarReader
from silo.model.windows_names import fold
from silo.windows.base.environment import USER_UID
from silo.windows.layers import keeping, member_names, security
from silo.windows.layers import properties as ntfs
from silo.windows.layers.drive import Drive
from silo.windows.layers.hives import HiveFiles
from silo.windows.layers.keeping import KeptFiles
from silo.windows.layers.late_links import HardLink, LateLinks, SymbolicLink
from silo.windows.layers.member_names import Area
from silo.windows.layers.properties import Properties, Stream
from silo.windows.layers.stack import LayerStack
from silo.windows.layers.tree import MergedTree, on_disk

_FILE_MODE, _READ_ONLY_MODE = 0o644, 0o444
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_PARENTS = 10_000
_HOLE_BYTES = 65536
_USERS_OWNER = (USER_UID, USER_UID)

Check = Callable[[Unpacked], None]


def unpack_layer(
    target: Path, hives: Path, reader: TarReader, below: Sequence[Path], *, check: Check = lambda _: None
) -> Unpacked:
    """Into the empty directory `target`; the registry's deltas become files in `hives`, which is made if there are any.

    `below`: the directories of all layers below, uppermost first, unpacked by this function or for the base. `check` is called
    once for each entry and raises when a limit is reached. Raises InvalidRequest naming entry and offset, Unsupported for a base
    layer, NoSpace, HostError. Blocks.
    """
    with ExitStack() as resources:
        stack = resources.enter_context(LayerStack(below))
        root = resources.enter_context(Root(target, links=Links.REFUSE))
        return LayerUnpacker(root, stack, HiveFiles(hives), check).unpack(reader)


class _Streams:
    """Data streams of the file that came last: written down when the next file comes."""

    def __init__(self, path: str, properties: Properties) -> None:
        self.path = path
        self.properties = properties
        self.streams: dict[str, Stream] = dict(properties.streams)


class LayerUnpacker:
    """One layer. The entries of one tar beneath one root."""

    def __init__(self, root: Root, stack: LayerStack, hives: HiveFiles, check: Check) -> None:
        self._root = root
        self._stack = stack
        self._hives = hives
        self._check = check
        self._kept = KeptFiles(root)
        self._tree = MergedTree(root, stack)
        self.result = Unpacked()
        self._warn = self.result.warn
        self._drive = Drive(root, stack, self._tree, self._kept, self._warn)
        self._links = LateLinks(root, stack, self._tree, self._drive, self._kept, count=self._count, warn=self._warn)
        self._streams: _Streams | None = None

    def unpack(self, reader: TarReader) -> Unpacked:
        """All entries. Raises as unpack_layer."""
        entry: TarEntry | None = None
        result = self.result
        try:
            while (entry := reader.next()) is not None:
                result.entries += 1
                result.file_bytes += entry.size
                self._check(result)
                self._apply(entry, reader)
            self._write_streams()
        except (OSError, InvalidRequest) as error:
            if entry is None and isinstance(error, InvalidRequest):
                raise
            raise explain_entry(error, entry.name if entry else "", reader.offset) from error
        self._links.apply()
        try:
            self._drive.finish()
            self._kept.finish()
        except OSError as error:
            raise host_error(error, "cannot finish the layer") from error
        return result

    def _count(self, more_bytes: int) -> None:
        """Bytes that are written though the archive does not hold them: copies of what is below."""
        self.result.file_bytes += more_bytes
        self._check(self.result)

    def _apply(self, entry: TarEntry, reader: TarReader) -> None:
        raw_parent, raw_name = member_names.split_member(entry.name)
        parent = self._drive.parents.get(raw_parent)
        if parent is None:
            area, parent = self._find_parent(raw_parent, entry)
            if area is Area.HIVES:
                self._hives.take(parent, raw_name, entry, reader, self._warn)
                return
            if area is not Area.FILES:
                return
        if raw_name.startswith(member_names.WHITEOUT):
            self._apply_whiteout(parent, raw_name)
            return
        name, stream = raw_name, ""
        if ":" in raw_name:
            name, stream = member_names.split_stream(raw_name)
        if name in ("", ".", ".."):
            raise InvalidRequest("its name does not name a file of its directory")
        member_names.check_name(name)
        name = self._tree.spelled(parent, name)
        path = f"{parent}/{name}" if parent else name
        if stream:
            self._take_stream(path, stream, entry, reader)
            return
        if self._streams is not None:
            self._write_streams()
        self._make(path, parent, name, entry, reader)

    def _find_parent(self, raw_parent: str, entry: TarEntry) -> tuple[Area, str]:
        """The area of a member and the directory in it, made in this layer. The areas' own members are dealt with here."""
        parts = member_names.parse_path(entry.name)
        if len(parts) < 2:
            self._take_top(parts[0] if parts else "", entry)
            return Area.OTHER, ""
        area, parent = member_names.parse_parent(raw_parent)
        if area is Area.UTILITY_VM:
            raise _base_layer(entry.name)
        if area is Area.OTHER:
            self._warn(f"{entry.name} lies neither in Files nor in Hives, and is left out")
        if area is not Area.FILES:
            return area, parent
        path = ""
        for part in parent.split("/") if parent else ():
            name = self._tree.spelled(path, part)
            path = f"{path}/{name}" if path else name
        self._drive.ensure_directory(path)
        if len(self._drive.parents) >= _KEPT_PARENTS:
            self._drive.parents.clear()
        self._drive.parents[raw_parent] = path
        return area, path

    def _take_top(self, name: str, entry: TarEntry) -> None:
        """A member without a parent; "" is the root of the archive."""
        area = member_names.parse_top(name)
        if area is Area.UTILITY_VM:
            raise _base_layer(entry.name)
        if area is Area.OTHER:
            if name:
                self._warn(f"{entry.name} lies neither in Files nor in Hives, and is left out")
            return
        if entry.kind != tarstream.DIRECTORY:
            raise InvalidRequest("it is no directory")
        if area is Area.FILES:
            self._make_directory("", entry)

    def _make(self, path: str, parent: str, name: str, entry: TarEntry, reader: TarReader) -> None:
        kind = entry.kind
        if kind == tarstream.FILE:
            self._write_file(path, parent, name, entry, reader)
        elif kind == tarstream.DIRECTORY:
            self._make_directory(path, entry)
        elif kind == tarstream.SYMBOLIC_LINK:
            properties = msgspec.structs.replace(self._properties(entry, False), target=entry.link)
            owner = self._owner(parent, properties)
            self._clear(path)
            times = _times(entry)
            self._links.add_symbolic(SymbolicLink(entry.name, reader.offset, path, properties, owner, times))
            self._tree.note(parent, name)
        elif kind == tarstream.HARD_LINK:
            area, target = member_names.parse_parent(entry.link)
            if area is not Area.FILES or not target:
                raise InvalidRequest(f"it is a hard link to {entry.link!r}, which is no file of the layer")
            self._clear(path)
            self._links.add_hard(HardLink(entry.name, reader.offset, path, target))
            self._tree.note(parent, name)
        elif kind in (tarstream.FIFO, tarstream.CHARACTER_DEVICE, tarstream.BLOCK_DEVICE):
            raise InvalidRequest("it is a device or a pipe, which no Windows layer holds")
        else:
            raise InvalidRequest(f"it is of the unknown type {kind!r}")

    def _properties(self, entry: TarEntry, is_directory: bool) -> Properties:
        if not entry.records:
            return Properties()
        return ntfs.parse_records(
            entry.records, is_directory=is_directory, warn=lambda text: self._warn(f"{entry.name}: {text}")
        )

    def _owner(self, parent: str, properties: Properties) -> tuple[int, int]:
        if properties.descriptor and security.is_users(properties.descriptor):
            return _USERS_OWNER
        return self._tree.folder(parent).owner

    def _write_file(self, path: str, parent: str, name: str, entry: TarEntry, reader: TarReader) -> None:
        if member_names.is_base_hive(path):
            raise _base_layer(entry.name)
        properties = self._properties(entry, False)
        try:
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=self._root.directory(on_disk(parent)))
        except FileExistsError:
            self._clear(path)
            descriptor = self._root.open_write(on_disk(path), 0o600)
        attributes = properties.attributes or 0
        try:
            if attributes & ntfs.SPARSE:
                _write_sparse(descriptor, reader.data(), entry.size)
            else:
                _write(descriptor, reader.data())
            owner = self._owner(parent, properties)
            if owner != (0, 0):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, _READ_ONLY_MODE if attributes & ntfs.READ_ONLY else _FILE_MODE)
            if entry.records:
                self._keep(descriptor, properties)
            os.utime(descriptor, ns=_times(entry))
        finally:
            os.close(descriptor)
        self._tree.note(parent, name)

    def _keep(self, descriptor: int, properties: Properties) -> None:
        keeping.store(descriptor, properties, is_directory=False, kept=self._kept, warn=self._warn)

    def _make_directory(self, path: str, entry: TarEntry) -> None:
        self._links.drop(path)
        self._drive.ensure_directory(path, replace=True)
        properties = self._properties(entry, True)
        is_users = properties.descriptor and security.is_users(properties.descriptor)
        self._drive.set_properties(path, properties, _times(entry), _USERS_OWNER if is_users else None)

    def _clear(self, path: str) -> None:
        self._links.drop(path)
        if self._drive.clear(path):
            self._links.drop_beneath(path)

    def _apply_whiteout(self, parent: str, raw_name: str) -> None:
        if raw_name == member_names.OPAQUE:
            self._drive.make_opaque(parent)
            return
        if raw_name.startswith(member_names.HOUSEKEEPING):  # AUFS' own, no part of the image
            return
        hidden = raw_name.removeprefix(member_names.WHITEOUT)
        member_names.check_name(hidden)
        below = self._tree.folder(parent).below
        for name in below.same(hidden) if below is not None else ():
            self._drive.hide(f"{parent}/{name}" if parent else name)

    def _take_stream(self, path: str, stream: str, entry: TarEntry, reader: TarReader) -> None:
        if entry.kind != tarstream.FILE:
            raise InvalidRequest("a data stream is a file")
        if self._streams is None or self._streams.path != path:
            self._write_streams()
            self._streams = self._load_streams(path)
        streams = self._streams.streams
        if stream not in streams and len(streams) >= keeping.MAXIMUM_STREAMS:
            raise InvalidRequest(f"the file has more than {keeping.MAXIMUM_STREAMS} data streams")
        # names of streams have no case either
        same = next((name for name in streams if fold(name) == fold(stream)), stream)
        streams[same] = self._kept.put_stream(reader.data(), entry.size)

    def _load_streams(self, path: str) -> _Streams:
        status = self._root.status(on_disk(path))
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InvalidRequest("it is a data stream of a file that the layer does not hold")
        with LayerStack([self._root.path]) as own:
            properties = keeping.load(self._root.attributes(on_disk(path)), own, self._warn)
        return _Streams(path, properties)

    def _write_streams(self) -> None:
        pending, self._streams = self._streams, None
        if pending is not None:
            properties = msgspec.structs.replace(pending.properties, streams=pending.streams)
            place = self._root.open(on_disk(pending.path), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                keeping.store_record(place, properties, kept=self._kept, warn=self._warn)
            finally:
                os.close(place)


def _base_layer(name: str) -> Unsupported:
    return Unsupported(
        f"this is a base layer of Windows: it holds {name}",
        details="Silo runs Windows images on a base of its own and never unpacks Microsoft's",
        hint="say how many of the image's lowest layers are its base's: silo pull --base-layers N, or load",
    )


def _times(entry: TarEntry) -> tuple[int, int]:
    return (entry.mtime_ns if entry.atime_ns is None else entry.atime_ns), entry.mtime_ns


def _write(descriptor: int, pieces: Iterator[memoryview]) -> None:
    for piece in pieces:
        written = os.write(descriptor, piece)
        while written < len(piece):
            written += os.write(descriptor, piece[written:])


def _write_sparse(descriptor: int, pieces: Iterator[memoryview], size: int) -> None:
    """Runs of zeros become holes."""
    for piece in pieces:
        for at in range(0, len(piece), _HOLE_BYTES):
            part = piece[at : at + _HOLE_BYTES]
            if part.tobytes().strip(b"\0"):
                _write(descriptor, iter((part,)))
            else:
                os.lseek(descriptor, len(part), os.SEEK_CUR)
    os.ftruncate(descriptor, size)
