"""A container's changes as an OCI layer → the same as a Windows layer. Streams; holds names of directories and links only.

What a container changes lies in its writable layer as Linux sees it: silo/prefix/drive_c/…, whiteouts, the registry's text files.
Taken are `C:\\` and the registry; the Linux half of a silo is no part of a Windows image.

Decisions:
- Windows knows no opaque directories. One is written as whiteouts of what the layers below have in it and this one has not.
- Every name comes once, whatever its case: what was deleted and made again in another has no whiteout, but what was in it has.
- Properties come with a changed file as attributes (silo/windows/layers/keeping.py). A directory or link that lacks them, because
  its writer does not tell them, has those that the layers below know.
- Links come after all files, since a link to a directory says that it is one; whiteouts after them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from silo.errors import InvalidRequest
from silo.host.unpacking import explain_entry
from silo.model import tarstream
from silo.model.tar_format import XATTR_PREFIX
from silo.model.tarstream import ByteStream, TarEntry, TarReader
from silo.model.windows_names import fold
from silo.model.windows_paths import PREFIX, REGISTRY_FILES, USER_REGISTRY_DIRECTORY
from silo.windows.base.environment import USER, USER_UID
from silo.windows.layers import keeping, member_names
from silo.windows.layers import properties as ntfs
from silo.windows.layers.links import resolve_target, windows_target
from silo.windows.layers.properties import Properties
from silo.windows.layers.stack import DRIVE, Kind, LayerStack
from silo.windows.layers.writing import DataStream, LayerMember, MemberKind, write_layer

_MAXIMUM_REGISTRY_BYTES = 64 << 20
_MAXIMUM_REGISTRY_FILES = 16
_PROFILE_ATTRIBUTES = ntfs.ARCHIVE | ntfs.HIDDEN | ntfs.SYSTEM
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

Warn = Callable[[str], None]


class RegistryChanges(msgspec.Struct, frozen=True):
    """What a container changed in its registry, as a layer has it."""

    hives: Mapping[str, bytes] = {}
    """Deltas by name (`Software_Delta`)."""
    profiles: Mapping[str, bytes] = {}
    """Whole hives of users by their path on `C:\\` (`Users/ContainerUser/NTUSER.DAT`)."""


RegistryDiff = Callable[[Mapping[str, bytes]], RegistryChanges]
"""Changed registry files by name (`system.reg`, `users/ContainerUser/user.reg`) → what that means."""


def convert_layer(
    chunks: Iterator[bytes],
    below: Sequence[Path],
    *,
    registry_diff: RegistryDiff,
    warn: Warn = lambda _: None,
) -> Iterator[bytes]:
    """An uncompressed Windows layer, in chunks.

    `chunks`: an uncompressed OCI layer in which an opaque mark comes before all else in its directory, as
    silo.storage.tar_tree.write_layer and the guest's agent write it. `below`: the directories of the image's layers, uppermost
    first. `registry_diff` is asked once, at the end, if a registry file changed. Raises InvalidRequest naming entry and offset for
    what Windows cannot hold, HostError. Blocks.
    """
    with LayerStack(below) as stack:
        conversion = _Conversion(TarReader(ByteStream(chunks)), stack, registry_diff, warn)
        yield from write_layer(conversion.members(), lambda: conversion.hives)


class _Link(msgspec.Struct, frozen=True):
    path: str
    text: str
    modified_ns: int
    is_users: bool


class _Conversion:
    """One layer."""

    def __init__(self, reader: TarReader, stack: LayerStack, registry_diff: RegistryDiff, warn: Warn) -> None:
        self._reader = reader
        self._stack = stack
        self._registry_diff = registry_diff
        self._warn = warn
        self.hives: Mapping[str, bytes] = {}
        """Complete after the last member."""
        self._registry: dict[str, bytes] = {}
        self._directories: set[str] = set()
        self._links: dict[str, _Link] = {}
        self._opaque: list[str] = []
        self._filled: set[str] = set()
        """fold(directory) of those that something came in."""
        self._spellings: dict[str, str] = {}
        """fold(directory) → how this layer spells it."""
        self._whiteouts: list[str] = []
        self._own: set[int] = set()
        """Hashes of fold(path) of all that this layer has."""
        self._names_in: dict[str, set[str]] = {}
        """fold(directory) → fold(names) that this layer has in it: of opaque directories and what is in them."""

    def members(self) -> Iterator[LayerMember]:
        """All of the layer's Files, and what changed in the registry."""
        while (entry := self._reader.next()) is not None:
            try:
                yield from self._entry(entry)
            except (OSError, InvalidRequest) as error:
                raise explain_entry(error, entry.name, self._reader.offset) from error
        for link in self._links.values():
            yield from self._parents(link.path)
            yield from self._symbolic(link)
        for path in self._whiteouts:
            yield from self._gone(path, path)
        for path in self._opaque:
            yield from self._hidden(path)
        yield from self._profiles()

    def _profiles(self) -> Iterator[LayerMember]:
        changes = self._registry_diff(self._registry) if self._registry else RegistryChanges()
        self.hives = changes.hives
        for path, hive in changes.profiles.items():
            path = self._spelled(path)
            yield from self._parents(path)
            yield LayerMember(
                path=path,
                kind=MemberKind.FILE,
                modified_ns=0,
                attributes=_PROFILE_ATTRIBUTES,
                is_users=f"/{USER.lower()}/" in path.lower(),
                size=len(hive),
                data=(hive,),
            )

    def _spelled(self, path: str) -> str:
        """As the layers below spell it, as far as they have it."""
        place = ""
        for part in path.split("/"):
            listing = self._stack.listing(place)
            name = listing.spelled(part) if listing is not None else None
            place = f"{place}/{name or part}" if place else name or part
        return place

    def _entry(self, entry: TarEntry) -> Iterator[LayerMember]:
        place = "/".join(member_names.parse_path(entry.name))
        if place != DRIVE and not place.startswith(f"{DRIVE}/"):
            self._take_registry(place, entry)
            return
        path = place[len(DRIVE) + 1 :]
        directory, _, name = path.rpartition("/")
        if name.startswith(member_names.WHITEOUT):
            self._whiteout(directory, name)
            return
        if ":" in path:
            self._warn(
                f"C:\\{path} has a colon in its name, as a data stream has, and is left out: Wine makes files of those"
            )
            return
        for part in path.split("/") if path else ():
            member_names.check_name(part)
        yield from self._parents(path)
        self._note(directory, name)
        if entry.kind == tarstream.DIRECTORY:
            yield from self._directory(path, entry)
        elif entry.kind == tarstream.FILE:
            yield self._file(path, entry)
        elif entry.kind == tarstream.SYMBOLIC_LINK:
            self._links[path] = _Link(path, entry.link, entry.mtime_ns, entry.uid == USER_UID)
        elif entry.kind == tarstream.HARD_LINK:
            yield from self._hard(path, entry)
        else:
            self._warn(f"C:\\{path} is a device or a pipe, and is left out")

    def _take_registry(self, place: str, entry: TarEntry) -> None:
        name = place.removeprefix(f"{PREFIX[1:]}/")
        users = f"{USER_REGISTRY_DIRECTORY[1:]}/"
        if place.startswith(users) and place.endswith("/user.reg") and place.count("/") == users.count("/") + 1:
            name = f"users/{place.removeprefix(users)}"
        elif name not in REGISTRY_FILES:
            return
        if entry.kind != tarstream.FILE:
            return
        if len(self._registry) >= _MAXIMUM_REGISTRY_FILES:
            raise InvalidRequest(f"more than {_MAXIMUM_REGISTRY_FILES} registry files changed")
        self._registry[name] = self._reader.read(_MAXIMUM_REGISTRY_BYTES)

    def _whiteout(self, directory: str, name: str) -> None:
        if name == member_names.OPAQUE:
            key = fold(directory)
            if key in self._filled:
                raise InvalidRequest("an opaque mark comes after other entries of its directory")
            if key not in self._names_in:
                self._names_in[key] = set()
                self._opaque.append(directory)
            return
        hidden = name.removeprefix(member_names.WHITEOUT)
        path = f"{directory}/{hidden}" if directory else hidden
        if not name.startswith(member_names.HOUSEKEEPING) and self._stack.find(path) is not None:
            self._whiteouts.append(path)

    def _gone(self, path: str, shown: str) -> Iterator[LayerMember]:
        """A whiteout of what the layers below have at a path, `shown` as this layer spells it. Where this layer has that name in
        another case, which to Windows is the same name, whiteouts of what was in it."""
        if hash(fold(path)) not in self._own:
            yield from self._parents(shown)
            yield LayerMember(path=shown, kind=MemberKind.WHITEOUT)
            return
        directory = self._spellings.get(fold(path))
        listing = self._stack.listing(path) if directory is not None else None
        for name in sorted(listing.names) if listing is not None else ():
            yield from self._gone(f"{path}/{name}", f"{directory}/{name}")

    def _note(self, directory: str, name: str) -> None:
        if not name:
            return
        self._own.add(hash(fold(f"{directory}/{name}" if directory else name)))
        self._filled.add(fold(directory))
        names = self._names_in.get(fold(directory))
        if names is not None:
            names.add(fold(name))

    def _parents(self, path: str) -> Iterator[LayerMember]:
        """The directories above a path that have not come yet."""
        if not path or path.rpartition("/")[0] in self._directories:
            return
        parts = path.split("/")
        for count in range(len(parts)):
            parent = "/".join(parts[:count])
            if parent not in self._directories:
                self._add_directory(parent)
                yield self._known_directory(parent)

    def _add_directory(self, path: str) -> None:
        self._directories.add(path)
        self._spellings.setdefault(fold(path), path)

    def _directory(self, path: str, entry: TarEntry) -> Iterator[LayerMember]:
        if path in self._directories:
            return  # it came as somebody's parent: Windows takes every name once
        self._add_directory(path)
        if path and fold(path.rpartition("/")[0]) in self._names_in:
            self._names_in.setdefault(fold(path), set())
        attributes = _attributes(entry)
        if not any(name in attributes for name in keeping.OF_FILES):
            attributes = self._below(path)[0]
        yield self._directory_member(path, attributes, entry.mtime_ns, is_users=entry.uid == USER_UID)

    def _known_directory(self, path: str) -> LayerMember:
        attributes, status = self._below(path)
        if status is None:
            return self._directory_member(path, {}, 0, is_users=False)
        return self._directory_member(path, attributes, status.st_mtime_ns, is_users=status.st_uid == USER_UID)

    def _directory_member(
        self, path: str, attributes: Mapping[str, bytes], modified_ns: int, *, is_users: bool
    ) -> LayerMember:
        properties = keeping.load(attributes, self._stack, self._warn_of(path))
        dos = attributes.get(keeping.DOS_ATTRIBUTES)
        return LayerMember(
            path=path,
            kind=MemberKind.DIRECTORY,
            modified_ns=modified_ns,
            attributes=keeping.attributes_of(properties.attributes, dos, stat.S_IFDIR),
            properties=properties,
            is_users=is_users,
            streams=self._streams(path, properties),
        )

    def _below(self, path: str) -> tuple[dict[str, bytes], os.stat_result | None]:
        """(attributes, status) of the directory that the layers below show."""
        listing = self._stack.listing(path)
        if listing is None:
            return {}, None
        descriptor = self._stack.open(listing.sources[0], path, _OPEN_DIRECTORY)
        try:
            found = os.listxattr(descriptor)
            attributes = {name: os.getxattr(descriptor, name) for name in keeping.OF_FILES if name in found}
            return attributes, os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _file(self, path: str, entry: TarEntry) -> LayerMember:
        if member_names.is_base_hive(path):
            raise InvalidRequest(f"C:\\{path} would make this a base layer of Windows")
        attributes = _attributes(entry)
        properties = keeping.load(attributes, self._stack, self._warn_of(path))
        dos = attributes.get(keeping.DOS_ATTRIBUTES)
        return LayerMember(
            path=path,
            kind=MemberKind.FILE,
            modified_ns=entry.mtime_ns,
            attributes=keeping.attributes_of(properties.attributes, dos, stat.S_IFREG | entry.mode),
            properties=properties,
            is_users=entry.uid == USER_UID,
            size=entry.size,
            data=self._reader.data(),
            streams=self._streams(path, properties),
        )

    def _hard(self, path: str, entry: TarEntry) -> Iterator[LayerMember]:
        place = "/".join(member_names.parse_path(entry.link))
        if not place.startswith(f"{DRIVE}/"):
            raise InvalidRequest(f"it is a hard link to /{place}, which is not on C:")
        target = place[len(DRIVE) + 1 :]
        link = self._links.get(target)
        if link is not None:
            self._links[path] = msgspec.structs.replace(link, path=path)
            return
        yield LayerMember(
            path=path,
            kind=MemberKind.HARD_LINK,
            modified_ns=entry.mtime_ns,
            attributes=ntfs.ARCHIVE,
            is_users=entry.uid == USER_UID,
            link=target,
        )

    def _symbolic(self, link: _Link) -> Iterator[LayerMember]:
        directory = link.path.split("/")[:-1]
        properties = self._known_link(link)
        target = properties.target or windows_target(link.text, directory)
        if target is None:
            self._warn(f"the link C:\\{link.path} to {link.text} leads out of C:, and is left out")
            return
        attributes = ntfs.REPARSE_POINT | (properties.attributes or 0)
        if properties.is_junction or self._leads_to_directory(target, directory):
            attributes |= ntfs.DIRECTORY
        elif properties.attributes is None:
            attributes |= ntfs.ARCHIVE
        yield LayerMember(
            path=link.path,
            kind=MemberKind.SYMBOLIC_LINK,
            modified_ns=link.modified_ns,
            attributes=attributes,
            properties=msgspec.structs.replace(properties, target=target),
            is_users=link.is_users,
        )

    def _known_link(self, link: _Link) -> Properties:
        """What the layers below know of the link, if it is still the same."""
        found = self._stack.find(link.path)
        if found is None or found.kind is not Kind.LINK:
            return Properties()
        parent, name = self._stack.open_parent(found.layer, link.path)
        try:
            if os.readlink(name, dir_fd=parent) != link.text:
                return Properties()
            return keeping.load_link(f"/proc/self/fd/{parent}/{name}", self._stack, self._warn_of(link.path))
        finally:
            os.close(parent)

    def _leads_to_directory(self, target: str, directory: Sequence[str]) -> bool:
        resolved = resolve_target(target, directory, lambda _: False)
        if resolved is None:
            return False
        path = "/".join(resolved)
        return path in self._directories or self._stack.listing(path) is not None

    def _streams(self, path: str, properties: Properties) -> tuple[DataStream, ...]:
        streams = []
        for name, stream in properties.streams.items():
            if member_names.split_stream(f"x:{name}") != ("x", name):
                self._warn(f"a data stream of C:\\{path} has no name that Windows allows, and is left out")
            elif not stream.digest:
                streams.append(DataStream(name, len(stream.data), (stream.data,)))
            else:
                pieces = keeping.read_kept(self._stack, stream.digest, stream.size)
                if pieces is None:
                    self._warn(f"the data stream {name} of C:\\{path} is missing, and is left out")
                    continue
                streams.append(DataStream(name, stream.size, pieces))
        return tuple(streams)

    def _hidden(self, top: str) -> Iterator[LayerMember]:
        """Whiteouts of what an opaque directory hides."""
        pending = [top]
        while pending:
            directory = pending.pop()
            listing = self._stack.listing(directory)
            own = self._names_in.get(fold(directory), set())
            for name, found in sorted(listing.names.items()) if listing is not None else ():
                path = f"{directory}/{name}" if directory else name
                if fold(name) not in own:
                    yield from self._parents(path)
                    yield LayerMember(path=path, kind=MemberKind.WHITEOUT)
                elif found.kind is Kind.DIRECTORY and fold(path) in self._names_in:
                    pending.append(path)

    def _warn_of(self, path: str) -> Warn:
        return lambda text: self._warn(f"C:\\{path}: {text}")


def _attributes(entry: TarEntry) -> dict[str, bytes]:
    """Extended attributes that the archive tells of."""
    found = {name: entry.records.get(XATTR_PREFIX + name) for name in keeping.OF_FILES}
    return {name: value for name, value in found.items() if value is not None}
