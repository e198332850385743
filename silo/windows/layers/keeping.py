"""Where an unpacked layer keeps what NTFS knows of a file and Linux does not.

    mode                       no write bit: READONLY, of files
    user.DOSATTRIB             HIDDEN and SYSTEM, as Wine and Samba read and write it; absent when neither is set
    user.silo.created          the time of creation in seconds; absent when it is the time of the last change
    user.silo.ntfs             all else (Properties in MessagePack), or `@<sha256>:<size>` when that is large
    trusted.silo.ntfs          the same of a link, which can have no attributes of users
    silo/kept/<sha256>         beside silo/prefix in the layer: large properties and data streams

Attributes go with a file when a container changes or renames it: overlayfs copies them up. A kept file is named by its content and
lies in some layer of the image, so a reference stays good in all layers above.

What is read may come from a container: it is checked, and what is wrong is passed over with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from silo.host.beneath import Root
from silo.model.tar_format import build_time
from silo.windows.layers import properties as ntfs
from silo.windows.layers import security
from silo.windows.layers.properties import Properties, Stream
from silo.windows.layers.stack import LayerStack

RECORD = "user.silo.ntfs"
LINK_RECORD = "trusted.silo.ntfs"
CREATED = "user.silo.created"
DOS_ATTRIBUTES = "user.DOSATTRIB"
OF_FILES = (RECORD, CREATED, DOS_ATTRIBUTES)
KEPT = "silo/kept"
MAXIMUM_STREAMS = 1000
"""Of one file."""

_SHOWN = ntfs.HIDDEN | ntfs.SYSTEM
# ext4 has room for 4096 bytes of attributes a file, all in all.
_INLINE_RECORD = 1500
_INLINE_STREAM = 256
_MAXIMUM_RECORD = 1 << 20
_REFERENCE = re.compile(rb"@([0-9a-f]{64}):(\d{1,7})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 1 << 18
_NOT_KEPT = (errno.ENOTSUP, errno.EPERM)

Warn = Callable[[str], None]


class KeptFiles:
    """Makes files in silo/kept of the layer that is being unpacked."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def put(self, pieces: Iterable[bytes | memoryview]) -> tuple[str, int]:
        """(digest, size) of what is kept now."""
        for directory in (KEPT.partition("/")[0], KEPT):
            self._root.make_directory(directory, 0o755, exist_ok=True)
        temporary = f"{KEPT}/new"
        self._root.remove(temporary)
        digest, size = hashlib.sha256(), 0
        with open(self._root.open_write(temporary, 0o644), "wb") as file:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                file.write(piece)
        name = digest.hexdigest()
        beside = self._root.directory(KEPT)
        os.rename("new", name, src_dir_fd=beside, dst_dir_fd=beside)
        self._root.set_times(f"{KEPT}/{name}", 0, 0)
        return name, size

    def put_stream(self, pieces: Iterator[memoryview], size: int) -> Stream:
        """A data stream of a known size."""
        if size <= _INLINE_STREAM:
            return Stream(data=b"".join(pieces))
        digest, size = self.put(pieces)
        return Stream(digest=digest, size=size)

    def finish(self) -> None:
        """The directory's time says nothing, and should be the same each time."""
        with contextlib.suppress(FileNotFoundError):
            self._root.set_times(KEPT, 0, 0)


def store(place: int, properties: Properties, *, is_directory: bool, kept: KeptFiles, warn: Warn) -> None:
    """As attributes of a file or directory, by its descriptor."""
    attributes = properties.attributes
    if attributes is not None and attributes & _SHOWN:
        _set(place, DOS_ATTRIBUTES, b"0x%x" % (attributes & _SHOWN), warn)
    if properties.created_ns is not None:
        _set(place, CREATED, build_time(properties.created_ns), warn)
    if attributes is not None:
        # a directory's READONLY is none: it does not keep anybody from making files in it
        bare = attributes & ~(_SHOWN if is_directory else _SHOWN | ntfs.READ_ONLY)
        attributes = None if bare == (0 if is_directory else ntfs.ARCHIVE) else bare
    record = _encode(properties, attributes, kept)
    if record:
        _set(place, RECORD, record, warn)


def store_link(path: str, properties: Properties, *, kept: KeptFiles, warn: Warn) -> None:
    """As an attribute of a symbolic link, by a path whose last component is not followed."""
    record = _encode(properties, properties.attributes, kept, with_time=True)
    try:
        os.setxattr(path, LINK_RECORD, record, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
        warn("the file system cannot keep the Windows targets of links")


def store_record(descriptor: int, properties: Properties, *, kept: KeptFiles, warn: Warn) -> None:
    """Only the record of what `load` gave, with more in it."""
    record = _encode(properties, properties.attributes, kept)
    if record:
        _set(descriptor, RECORD, record, warn)


def load(untrusted_attributes: Mapping[str, bytes], stack: LayerStack, warn: Warn) -> Properties:
    """What is kept with a file. Its `attributes` lack those that attributes_of adds."""
    found = Properties()
    untrusted_record = untrusted_attributes.get(RECORD)
    if untrusted_record is not None:
        found = _decode(untrusted_record, stack, warn)
    if CREATED in untrusted_attributes:
        created_ns = ntfs.parse_time(untrusted_attributes[CREATED])
        found = msgspec.structs.replace(found, created_ns=created_ns)
    return found


def load_link(path: str, stack: LayerStack, warn: Warn) -> Properties:
    """What is kept with a symbolic link, by a path whose last component is not followed."""
    try:
        untrusted_record = os.getxattr(path, LINK_RECORD, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_NOT_KEPT, errno.ENODATA):
            raise
        return Properties()
    return _decode(untrusted_record, stack, warn)


def attributes_of(kept: int | None, untrusted_dos: bytes | None, mode: int) -> int:
    """FILE_ATTRIBUTE_* of a file or directory as Windows would show them, from all places that they are kept in."""
    is_directory = stat.S_ISDIR(mode)
    attributes = (0 if is_directory else ntfs.ARCHIVE) if kept is None else kept & ~_SHOWN
    if untrusted_dos is not None:
        with contextlib.suppress(ValueError):
            attributes |= int(untrusted_dos[:16].split(b"\0")[0], 16) & _SHOWN
    if not is_directory and not mode & 0o222:
        attributes |= ntfs.READ_ONLY
    if is_directory:
        attributes |= ntfs.DIRECTORY
    # NORMAL means: no other
    return attributes & ~ntfs.NORMAL or ntfs.NORMAL


def read_kept(stack: LayerStack, digest: str, size: int) -> Iterator[bytes] | None:
    """What is kept in a file of some layer; None when there is none of that size. It is opened when the first byte is asked."""
    if _DIGEST.fullmatch(digest) is None:
        return None
    for layer in stack.layers:
        try:
            descriptor = stack.open_beside(layer, f"{KEPT}/{digest}", os.O_RDONLY)
        except OSError:
            continue
        status = os.fstat(descriptor)
        os.close(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return _read_file(stack, layer, digest, size)
    return None


def _read_file(stack: LayerStack, layer: int, digest: str, size: int) -> Iterator[bytes]:
    descriptor = stack.open_beside(layer, f"{KEPT}/{digest}", os.O_RDONLY)
    try:
        while size:
            data = os.read(descriptor, min(size, _READ_BYTES)) or bytes(min(size, _READ_BYTES))
            size -= len(data)
            yield data
    finally:
        os.close(descriptor)


def _encode(properties: Properties, attributes: int | None, kept: KeptFiles, *, with_time: bool = False) -> bytes:
    created_ns = properties.created_ns if with_time else None
    rest = msgspec.structs.replace(properties, attributes=attributes, created_ns=created_ns)
    if rest == Properties():
        return b""
    record = msgspec.msgpack.encode(rest)
    if len(record) <= _INLINE_RECORD:
        return record
    digest, size = kept.put([record])
    return b"@%b:%d" % (digest.encode(), size)


def _decode(untrusted_record: bytes, stack: LayerStack, warn: Warn) -> Properties:
    reference = _REFERENCE.fullmatch(untrusted_record)
    if reference:
        size = int(reference[2])
        pieces = None if size > _MAXIMUM_RECORD else read_kept(stack, reference[1].decode(), size)
        if pieces is None:
            warn(f"the properties in {KEPT}/{reference[1].decode()} are missing")
            return Properties()
        untrusted_record = b"".join(pieces)
    try:
        found = msgspec.msgpack.decode(untrusted_record, type=Properties)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        warn(f"its attribute {RECORD} is damaged: {error}")
        return Properties()
    fits = (
        len(found.descriptor) <= security.MAXIMUM_BYTES
        and len(found.streams) <= MAXIMUM_STREAMS
        and 0 <= (found.attributes or 0) < 1 << 32
        and found.sddl.isascii()
    )
    if not fits:
        warn(f"its attribute {RECORD} is damaged")
        return Properties()
    return found


def _set(place: int, name: str, value: bytes, warn: Warn) -> None:
    try:
        os.setxattr(place, name, value)
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
        warn(f"the file system cannot keep {name}")
