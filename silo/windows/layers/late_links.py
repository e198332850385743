"""Links of a layer: made after all files, when what they lead to is there and has its spelling.

A symbolic link is made at once, so that later entries meet it, and once more at the end where its text has to be another. A hard
link whose target this layer has not (yet) is made at the end: of a file below it is a copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from silo.errors import InvalidRequest
from silo.host.beneath import Root
from silo.host.overlay import is_whiteout
from silo.host.unpacking import explain_entry
from silo.windows.layers import keeping
from silo.windows.layers.drive import Drive, Times
from silo.windows.layers.keeping import KeptFiles
from silo.windows.layers.links import dead_text, link_text, resolve_target, windows_target
from silo.windows.layers.properties import Properties
from silo.windows.layers.stack import Kind, LayerStack
from silo.windows.layers.tree import MergedTree, on_disk

_MAXIMUM_TEXT = 4095
_COPY_BYTES = 1 << 30


class SymbolicLink(msgspec.Struct, frozen=True):
    """A symbolic link or junction; its target is in `properties`."""

    member: str
    offset: int
    path: str
    properties: Properties
    owner: tuple[int, int]
    times: Times


class HardLink(msgspec.Struct, frozen=True):
    """Another name of the file at `target`, a path of `C:\\` as the archive spells it."""

    member: str
    offset: int
    path: str
    target: str


class LateLinks:
    """The links of one layer."""

    def __init__(
        self,
        root: Root,
        stack: LayerStack,
        tree: MergedTree,
        drive: Drive,
        kept: KeptFiles,
        *,
        count: Callable[[int], None],
        warn: Callable[[str], None],
    ) -> None:
        self._root = root
        self._stack = stack
        self._tree = tree
        self._drive = drive
        self._kept = kept
        self._count = count
        self._warn = warn
        self._symbolic: dict[str, tuple[SymbolicLink, str]] = {}
        self._hard: dict[str, HardLink] = {}
        self._copies: dict[tuple[int, str], str] = {}

    def add_symbolic(self, link: SymbolicLink) -> None:
        """Made at once; the place is free."""
        text = self._text(link)
        self._make_symbolic(link, text)
        self._symbolic[link.path] = link, text

    def add_hard(self, link: HardLink) -> None:
        """Made at once if this layer has its target; the place is free."""
        target = self._spelled(link.target)
        status = self._root.status(on_disk(target))
        if status is None or is_whiteout(status) or target in self._symbolic:
            self._hard[link.path] = link
        else:
            self._link(link, target, status)

    def drop(self, path: str) -> None:
        """A later entry takes the place of what was there."""
        if self._hard or self._symbolic:
            self._hard.pop(path, None)
            self._symbolic.pop(path, None)

    def drop_beneath(self, path: str) -> None:
        """A directory is gone, with the links in it."""
        for links in (self._hard, self._symbolic):
            for known in [known for known in links if known.startswith(f"{path}/")]:
                links.pop(known)

    def apply(self) -> None:
        """Hard links first, since a symbolic one may lead to them. Raises InvalidRequest naming the entry, HostError."""
        for link in list(self._hard.values()):
            if link.path not in self._hard:
                continue
            with _explained(link):
                self._apply_hard(link)
        for symbolic, text in list(self._symbolic.values()):
            with _explained(symbolic):
                self._finish_symbolic(symbolic, text)

    def _finish_symbolic(self, link: SymbolicLink, text: str) -> None:
        """Once more: what it leads to may have come later."""
        status = self._root.status(on_disk(link.path))
        if status is None or not stat.S_ISLNK(status.st_mode):
            return
        now = self._text(link, final=True)
        if now != text:
            self._root.remove(on_disk(link.path))
            self._make_symbolic(link, now)

    def _text(self, link: SymbolicLink, *, final: bool = False) -> str:
        target = link.properties.target
        directory = link.path.split("/")[:-1]
        resolved = resolve_target(target, directory, lambda parts: self._tree.spell(parts)[1])
        if resolved is None:
            if final:
                self._warn(f"{link.member} links to {target!r}, outside of C:, and leads nowhere here")
            return dead_text(target)
        return link_text(directory, self._tree.spell(resolved)[0])

    def _make_symbolic(self, link: SymbolicLink, text: str) -> None:
        if not 0 < len(os.fsencode(text)) <= _MAXIMUM_TEXT:
            raise InvalidRequest(f"its target has {len(text)} characters, Linux takes up to {_MAXIMUM_TEXT} bytes")
        place = on_disk(link.path)
        self._root.symlink(text, place)
        if link.owner != (0, 0):
            self._root.set_owner(place, *link.owner)
        parent, name = self._root.locate(place)
        keeping.store_link(f"/proc/self/fd/{parent}/{name}", link.properties, kept=self._kept, warn=self._warn)
        self._root.set_times(place, *link.times)

    def _apply_hard(self, link: HardLink) -> None:
        """Targets that are links themselves come before it."""
        chain = {link.path: link}
        target = self._spelled(link.target)
        while (other := self._hard.get(target)) is not None:
            if target in chain:
                raise InvalidRequest("it is a hard link to itself")
            chain[target] = other
            target = self._spelled(other.target)
        for pending in reversed(chain.values()):
            del self._hard[pending.path]
            self._make_hard(pending)

    def _make_hard(self, link: HardLink) -> None:
        target = self._spelled(link.target)
        status = self._root.status(on_disk(target))
        if status is not None and not is_whiteout(status):
            self._link(link, target, status)
            return
        found = self._stack.find(target)
        if found is None or found.kind is Kind.OTHER:
            self._warn(f"{link.member} is left out: it is a hard link to Files/{link.target}, which no layer has")
            return
        if found.kind is Kind.DIRECTORY:
            raise InvalidRequest(f"it is a hard link to Files/{link.target}, which is a directory")
        first = self._copies.get((found.layer, target))
        first_status = None if first is None else self._root.status(on_disk(first))
        if first is not None and first_status is not None:
            self._link(link, first, first_status)
            return
        self._copies[found.layer, target] = link.path
        self._free(link.path)
        if found.kind is Kind.LINK:
            self._copy_symbolic(link, found.layer, target)
        else:
            self._copy(found.layer, target, link.path)

    def _link(self, link: HardLink, target: str, status: os.stat_result) -> None:
        if target == link.path:
            raise InvalidRequest("it is a hard link to itself")
        if stat.S_ISDIR(status.st_mode):
            raise InvalidRequest(f"it is a hard link to Files/{link.target}, which is a directory")
        self._free(link.path)
        self._root.hardlink(on_disk(target), on_disk(link.path))
        if target in self._symbolic:
            original, text = self._symbolic[target]
            self._symbolic[link.path] = msgspec.structs.replace(original, path=link.path), text

    def _free(self, path: str) -> None:
        """The place of a link: its directory, with nothing in it by that name."""
        self._drive.ensure_directory(path.rpartition("/")[0])
        status = self._root.status(on_disk(path))
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise InvalidRequest("other entries need a directory in its place")
        self._drive.clear(path)

    def _copy(self, layer: int, source: str, path: str) -> None:
        """Shares the data where the file system can."""
        descriptor = self._stack.open(layer, source, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            self._count(status.st_size)
            copy = self._root.open_write(on_disk(path), 0o600)
            try:
                _copy_data(descriptor, copy, status.st_size)
                os.fchown(copy, status.st_uid, status.st_gid)
                os.fchmod(copy, stat.S_IMODE(status.st_mode))
                found = os.listxattr(descriptor)
                for name in keeping.OF_FILES:
                    if name in found:
                        os.setxattr(copy, name, os.getxattr(descriptor, name))
                os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(descriptor)

    def _copy_symbolic(self, link: HardLink, layer: int, source: str) -> None:
        """A link to a link below: another of the same target."""
        parent, name = self._stack.open_parent(layer, source)
        try:
            place = f"/proc/self/fd/{parent}/{name}"
            text = os.readlink(name, dir_fd=parent)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            properties = keeping.load_link(place, self._stack, self._warn)
        finally:
            os.close(parent)
        target = properties.target or windows_target(text, source.split("/")[:-1])
        if target is None:
            self._warn(f"{link.member} is left out: Files/{source} leads out of C:")
            return
        self.add_symbolic(
            SymbolicLink(
                link.member,
                link.offset,
                link.path,
                msgspec.structs.replace(properties, target=target),
                (status.st_uid, status.st_gid),
                (status.st_atime_ns, status.st_mtime_ns),
            )
        )

    def _spelled(self, target: str) -> str:
        """A path of the archive as it is spelled. Links on the way are not followed, nor are they on Windows."""
        return "/".join(self._tree.spell(target.split("/"))[0])


@contextlib.contextmanager
def _explained(link: SymbolicLink | HardLink) -> Iterator[None]:
    try:
        yield
    except (OSError, InvalidRequest) as error:
        raise explain_entry(error, link.member, link.offset) from error


def _copy_data(source: int, target: int, size: int) -> None:
    """Up to `size` bytes; shared where the file system can."""
    while size and (copied := os.copy_file_range(source, target, min(size, _COPY_BYTES))):
        size -= copied
