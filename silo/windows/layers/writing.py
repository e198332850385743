"""Members → the tar of a Windows layer, as Windows' own tools write and read it. Equal input gives equal bytes.

Names have no slash at their end, also of directories; modes hold the type and nothing else; every member has its security
descriptor. Sources: microsoft/go-winio backuptar/tar.go, microsoft/hcsshim pkg/ociwclayer.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from silo.model import tar_format
from silo.model.tar_format import END, build_member, padding
from silo.windows.hives.places import PLACES
from silo.windows.layers import properties as ntfs
from silo.windows.layers.member_names import WHITEOUT
from silo.windows.layers.properties import Properties

_FILES, _HIVES = "Files", "Hives"
_DATA_RECORDS = ("atime", "ctime")


class MemberKind(enum.Enum):
    """What a member is."""

    FILE = enum.auto()
    DIRECTORY = enum.auto()
    SYMBOLIC_LINK = enum.auto()
    HARD_LINK = enum.auto()
    WHITEOUT = enum.auto()


class DataStream(msgspec.Struct, frozen=True):
    """An alternate data stream."""

    name: str
    size: int
    data: Iterable[bytes | memoryview]


class LayerMember(msgspec.Struct, frozen=True, kw_only=True):
    """One file, directory or link of `C:\\`, or a whiteout of one."""

    path: str
    """With slashes; "" is `C:\\` itself."""
    kind: MemberKind
    modified_ns: int = 0
    attributes: int = 0
    """FILE_ATTRIBUTE_*, all of them."""
    properties: Properties = Properties()
    """A link's target is in here; `streams` and `attributes` of it are not looked at."""
    is_users: bool = False
    """ContainerUser's, where the properties have no descriptor."""
    size: int = 0
    data: Iterable[bytes | memoryview] = ()
    streams: tuple[DataStream, ...] = ()
    link: str = ""
    """Of a hard link: the path that is the same file."""


def write_layer(members: Iterable[LayerMember], hives: Callable[[], Mapping[str, bytes]] = dict) -> Iterator[bytes]:
    """An uncompressed layer in chunks. Members come in their order, directories before what is in them, and may be made while
    this goes on; `hives` is asked after the last of them: files by names such as `Software_Delta`."""
    has_root = False
    for member in members:
        if not has_root:
            has_root = True
            if member.path:
                yield _bare_directory(_FILES)
        yield from _member(member)
    if not has_root:
        yield _bare_directory(_FILES)
    yield _bare_directory(_HIVES)
    for name, delta in sorted(hives().items()):
        yield from _hive(name, delta)
    yield END


def _member(member: LayerMember) -> Iterator[bytes]:
    name = f"{_FILES}/{member.path}" if member.path else _FILES
    if member.kind is MemberKind.WHITEOUT:
        parent, _, last = name.rpartition("/")
        yield build_member(f"{parent}/{WHITEOUT}{last}", tar_format.FILE, mode=0, modified_ns=0)
        return
    is_directory = member.kind is MemberKind.DIRECTORY
    records = ntfs.build_records(
        member.properties,
        attributes=member.attributes,
        modified_ns=member.modified_ns,
        is_directory=is_directory or bool(member.attributes & ntfs.DIRECTORY),
        is_users=member.is_users,
    )
    kind, mode, link = tar_format.FILE, stat.S_IFREG, ""
    if is_directory:
        kind, mode = tar_format.DIRECTORY, stat.S_IFDIR
    elif member.kind is MemberKind.SYMBOLIC_LINK:
        kind, mode, link = tar_format.SYMBOLIC_LINK, stat.S_IFLNK, member.properties.target
    elif member.kind is MemberKind.HARD_LINK:
        kind, mode, link = tar_format.HARD_LINK, 0o644, f"{_FILES}/{member.link}"
    yield build_member(
        name, kind, mode=mode, modified_ns=member.modified_ns, size=member.size, link=link, extended=records
    )
    if member.kind is MemberKind.FILE:
        yield from _data(member.data, member.size)
    for stream in member.streams:
        yield build_member(
            f"{name}:{stream.name}",
            tar_format.FILE,
            mode=mode,
            modified_ns=member.modified_ns,
            size=stream.size,
            extended={key: records[key] for key in _DATA_RECORDS},
        )
        yield from _data(stream.data, stream.size)


def _data(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    for piece in pieces:
        yield bytes(piece)
    yield padding(size)


def _bare_directory(name: str) -> bytes:
    return build_member(
        name, tar_format.DIRECTORY, mode=stat.S_IFDIR, modified_ns=0, extended={ntfs.ATTRIBUTES_RECORD: b"16"}
    )


def _hive(name: str, data: bytes) -> Iterator[bytes]:
    if all(place.delta_name != name for place in PLACES):
        raise ValueError(f"{name} is no registry delta")
    yield build_member(
        f"{_HIVES}/{name}",
        tar_format.FILE,
        mode=stat.S_IFREG,
        modified_ns=0,
        size=len(data),
        extended={ntfs.ATTRIBUTES_RECORD: b"32"},
    )
    yield data
    yield padding(len(data))
