"""`C:\\` of a layer on the disk while it is being unpacked: directories, and what hides the layers below.

Paths are relative to `C:\\` and spelled as they shall be; silo/windows/layers/tree.py finds the spelling.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from silo.errors import InvalidRequest
from silo.host.beneath import Root
from silo.host.overlay import OPAQUE_ATTRIBUTE, is_opaque, is_whiteout
from silo.windows.layers import keeping
from silo.windows.layers.keeping import KeptFiles
from silo.windows.layers.properties import Properties
from silo.windows.layers.stack import DRIVE, LayerStack
from silo.windows.layers.tree import MergedTree, on_disk

_MODE = 0o755
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

Times = tuple[int, int]
"""Nanoseconds: of the last access, of the last change."""


class Drive:
    """The writable side of a MergedTree."""

    def __init__(
        self, root: Root, stack: LayerStack, tree: MergedTree, kept: KeptFiles, warn: Callable[[str], None]
    ) -> None:
        self._root = root
        self._stack = stack
        self._tree = tree
        self._kept = kept
        self._warn = warn
        self._times: dict[str, Times] = {}
        """By the place of a directory in the layer; set at the end."""
        self._hidden: set[str] = set()
        self._opaque: set[str] = set()
        self.parents: dict[str, str] = {}
        """Names of directories in the archive → their paths here, where they exist. Forgotten when directories go."""

    def ensure_directory(self, path: str, *, replace: bool = False) -> None:
        """Make what is missing of a path. `replace`: a file or link at its end gives way. Raises InvalidRequest, OSError."""
        if self._has_directory(path):
            return
        place = ""
        parts = on_disk(path).split("/")
        for count, part in enumerate(parts, 1):
            place = f"{place}/{part}" if place else part
            status = self._root.status(place)
            if status is not None and stat.S_ISDIR(status.st_mode):
                continue
            if status is not None:
                if not is_whiteout(status) and not (replace and count == len(parts)):
                    raise InvalidRequest(f"{_shown(place)} is no directory in this layer")
                self.clear(_on_drive(place))
            self._create(place)

    def set_properties(self, path: str, properties: Properties, times: Times, owner: tuple[int, int] | None) -> None:
        """Of a directory that exists. `owner` None leaves it to whom it belongs."""
        descriptor = self._root.open(on_disk(path), _OPEN)
        try:
            found = os.listxattr(descriptor)
            for name in keeping.OF_FILES:
                if name in found:
                    os.removexattr(descriptor, name)
            if owner is not None:
                os.fchown(descriptor, *owner)
                self._tree.folder(path).owner = owner
            keeping.store(descriptor, properties, is_directory=True, kept=self._kept, warn=self._warn)
        finally:
            os.close(descriptor)
        self._times[on_disk(path)] = times

    def clear(self, path: str) -> bool:
        """Remove whatever this layer has at a path. Answers whether it was a directory, with all that was in it."""
        place = on_disk(path)
        status = self._root.status(place)
        if status is None:
            return False
        self._root.remove(place)
        if not stat.S_ISDIR(status.st_mode):
            return False
        for known in [known for known in self._times if known == place or known.startswith(f"{place}/")]:
            del self._times[known]
        self._forget()
        return True

    def hide(self, path: str) -> None:
        """What the layers below have there is gone; what this layer brings itself, before or after, stays."""
        self._hidden.add(path)
        status = self._root.status(on_disk(path))
        if status is None:
            self._make_whiteout(path)
        elif stat.S_ISDIR(status.st_mode):
            self.make_opaque(path)

    def make_opaque(self, path: str) -> None:
        """Nothing of the layers below shows through a directory of this layer."""
        self._opaque.add(path)
        self._root.set_attribute(on_disk(path), OPAQUE_ATTRIBUTE, b"y")
        self._forget()

    def finish(self) -> None:
        """Hide what must be hidden and nothing twice, then set the directories' times."""
        for path in self._hidden:
            # what this layer had there, or the directory it is in, may have gone and come again
            if not self._has_directory(path.rpartition("/")[0]):
                continue
            status = self._root.status(on_disk(path))
            if status is None:
                self._make_whiteout(path)
            if self._opaque and (status is None or is_whiteout(status)) and self._is_in_opaque(path):
                # overlayfs lists whiteouts of a directory that it need not merge, as names of nothing
                self._root.remove(on_disk(path))
        for place, times in reversed(self._times.items()):
            self._root.set_times(place, *times)
        # never shown, but the same each time
        self._root.set_times("", 0, 0)

    def _has_directory(self, path: str) -> bool:
        try:
            self._root.directory(on_disk(path))
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            return False
        return True

    def _make_whiteout(self, path: str) -> None:
        self._root.make_node(on_disk(path), stat.S_IFCHR | 0o600, os.makedev(0, 0))
        self._root.set_times(on_disk(path), 0, 0)

    def _is_in_opaque(self, path: str) -> bool:
        parts = path.split("/")[:-1]
        for count in range(len(parts), -1, -1):
            descriptor = self._root.open(on_disk("/".join(parts[:count])), _OPEN)
            try:
                if is_opaque(descriptor):
                    return True
            finally:
                os.close(descriptor)
        return False

    def _forget(self) -> None:
        self._tree.forget()
        self.parents.clear()

    def _create(self, place: str) -> None:
        """A directory that is there below, and shows through, keeps its owner, mode, times and properties."""
        path = _on_drive(place) if place.startswith(DRIVE) else None
        opaque = path is not None and (path in self._hidden or path in self._opaque)
        owner, mode, times = (0, 0), _MODE, (0, 0)
        properties: dict[str, bytes] = {}
        below = None
        if path is None:
            below = self._stack.open_uppermost(place)
        else:
            folder = self._tree.folder(path)
            owner = folder.owner
            if folder.below is not None and not opaque:
                below = self._stack.open(folder.below.sources[0], path, _OPEN)
        if below is not None:
            try:
                status = os.fstat(below)
                found = os.listxattr(below)
                properties = {name: os.getxattr(below, name) for name in keeping.OF_FILES if name in found}
            finally:
                os.close(below)
            owner, mode = (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)
            times = status.st_atime_ns, status.st_mtime_ns
        self._root.make_directory(place, 0o700)
        if owner != (0, 0):
            self._root.set_owner(place, *owner)
        self._root.set_mode(place, mode)
        for name, value in properties.items():
            self._root.set_attribute(place, name, value)
        self._times[place] = times
        if path is not None and opaque:
            self.make_opaque(path)
        if path:
            parent, _, name = path.rpartition("/")
            self._tree.note(parent, name)


def _on_drive(place: str) -> str:
    return place[len(DRIVE) + 1 :]


def _shown(place: str) -> str:
    return f"Files/{_on_drive(place)}" if place.startswith(f"{DRIVE}/") else place
