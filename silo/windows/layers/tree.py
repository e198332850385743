"""`C:\\` while a layer is being unpacked: what is made already, over what the layers below show.

Names find their spelling here: a name that is there in another case, made or below, is that name. Paths are relative to `C:\\`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from silo.host.beneath import Root
from silo.host.overlay import is_opaque, is_whiteout
from silo.model.windows_names import fold
from silo.windows.layers.links import resolve_target
from silo.windows.layers.stack import DRIVE, Kind, LayerStack, Listing

_KEPT_NAMES = 500_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MAXIMUM_LINKS = 40


@dataclass(slots=True)
class Folder:
    """A directory."""

    names: dict[str, str]
    """fold(name) → the name, of what is made and what is below."""
    below: Listing | None
    """None: nothing shows through."""
    owner: tuple[int, int]
    """Of it, and of what is new in it."""


class MergedTree:
    """The tree beneath `root`, the directory of the new layer, over `stack`."""

    def __init__(self, root: Root, stack: LayerStack) -> None:
        self._root = root
        self._stack = stack
        self._folders: dict[str, Folder] = {}
        self._names = 0

    def folder(self, path: str) -> Folder:
        """Of a path whose parents are directories, made or below."""
        folder = self._folders.get(path)
        if folder is not None:
            return folder
        parts = path.split("/") if path else []
        above: Folder | None = None
        for count in range(len(parts) + 1):
            above = self._load("/".join(parts[:count]), above)
        assert above is not None
        return above

    def spelled(self, path: str, name: str) -> str:
        """How `name` in the directory `path` is spelled; as given when there is none."""
        folder = self.folder(path)
        found = folder.names.get(fold(name))
        if found is None:
            return name
        if found != name and folder.below is not None and name in folder.below.names:
            return name  # two names that differ in case only, made by a Linux program
        return found

    def note(self, path: str, name: str) -> None:
        """Something was made in the directory `path`."""
        self.folder(path).names.setdefault(fold(name), name)

    def forget(self) -> None:
        """A directory was removed or made opaque."""
        self._folders.clear()
        self._names = 0

    def spell(self, parts: Sequence[str]) -> tuple[list[str], bool]:
        """(the components of a path as they are spelled, whether there is something). Links on the way are followed."""
        spelled: list[str] = []
        place = ""
        for index, part in enumerate(parts):
            directory = self._follow(place)
            if directory is None:
                return [*spelled, *parts[index:]], False
            name = self.spelled(directory, part)
            spelled.append(name)
            place = f"{directory}/{name}" if directory else name
        return spelled, not parts or self._kind(place) is not None

    def _follow(self, path: str) -> str | None:
        """The directory that a path leads to by its last component; None when it leads to none."""
        pending = [path] if path else []
        place, links = "", 0
        while pending:
            part = pending.pop()
            at = f"{place}/{part}" if place else part
            kind = self._kind(at)
            if kind is Kind.DIRECTORY:
                place = at
                continue
            links += 1
            if kind is not Kind.LINK or links > _MAXIMUM_LINKS:
                return None
            text = self._link_text(at)
            target = resolve_target(text, at.split("/")[:-1], lambda _: False)
            if target is None:
                return None
            pending.extend(reversed(target))
            place = ""
        return place

    def _kind(self, path: str) -> Kind | None:
        """Of what is made or below at a path whose directory is there."""
        status = self._root.status(on_disk(path))
        if status is None:
            parent, _, name = path.rpartition("/")
            below = self.folder(parent).below
            found = None if below is None else below.names.get(name)
            return None if found is None else found.kind
        if stat.S_ISDIR(status.st_mode):
            return Kind.DIRECTORY
        if stat.S_ISLNK(status.st_mode):
            return Kind.LINK
        return None if is_whiteout(status) else Kind.FILE

    def _link_text(self, path: str) -> str:
        if self._root.status(on_disk(path)) is not None:
            return self._root.read_link(on_disk(path))
        found = self._stack.find(path)
        assert found is not None
        return self._stack.read_link(found.layer, path)

    def _load(self, path: str, above: Folder | None) -> Folder:
        known = self._folders.get(path)
        if known is not None:
            return known
        below = None
        if above is None or above.below is not None:
            below = self._stack.listing(path)
        names = dict(below.folded) if below is not None else {}
        owner = above.owner if above is not None else (0, 0)
        if below is not None:
            owner = self._owner_below(path, below)
        try:
            descriptor = self._root.open(on_disk(path), _DIRECTORY)
        except OSError:
            descriptor = -1
        if descriptor >= 0:
            try:
                if is_opaque(descriptor):
                    below, names = None, {}
                status = os.fstat(descriptor)
                owner = status.st_uid, status.st_gid
                with os.scandir(descriptor) as entries:
                    names.update((fold(entry.name), entry.name) for entry in entries)
            finally:
                os.close(descriptor)
        folder = Folder(names, below, owner)
        if self._names > _KEPT_NAMES:
            self.forget()
        self._folders[path] = folder
        self._names += 1 + len(names)
        return folder

    def _owner_below(self, path: str, below: Listing) -> tuple[int, int]:
        descriptor = self._stack.open(below.sources[0], path, os.O_PATH | os.O_DIRECTORY)
        try:
            status = os.fstat(descriptor)
            return status.st_uid, status.st_gid
        finally:
            os.close(descriptor)


def on_disk(path: str) -> str:
    """Relative to the layer's directory."""
    return f"{DRIVE}/{path}" if path else DRIVE
