"""`C:\\` as the unpacked layers of an image show it together, without mounting them; names are found without case.

A layer is a directory as overlayfs takes it: files under silo/prefix/drive_c, whiteouts, opaque directories. Paths here are
relative to `C:\\`, spelled as on the disk; "" is `C:\\` itself. No link is ever followed: layers come from images.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from silo.host.beneath import Links, openat2
from silo.host.overlay import is_opaque, is_whiteout
from silo.model.windows_names import fold
from silo.model.windows_paths import DRIVE_C

_REFUSE = Links.REFUSE.value
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_ABSENT = (errno.ENOENT,)
_HIDDEN = (errno.ENOTDIR, errno.ELOOP)
_KEPT_NAMES = 500_000
DRIVE = DRIVE_C[1:]


class Kind(enum.Enum):
    """What a name stands for."""

    DIRECTORY = enum.auto()
    FILE = enum.auto()
    LINK = enum.auto()
    OTHER = enum.auto()


class Found(msgspec.Struct, frozen=True):
    """A name in a directory of the stack, and the uppermost layer that has it."""

    kind: Kind
    layer: int


class Listing(msgspec.Struct, frozen=True):
    """One directory of the stack."""

    names: dict[str, Found]
    folded: dict[str, str]
    """fold(name) → the name; of several the first in order."""
    sources: tuple[int, ...]
    """The layers whose directories show through, uppermost first."""

    def spelled(self, name: str) -> str | None:
        """The name as on the disk; an exact match wins."""
        return name if name in self.names else self.folded.get(fold(name))

    def same(self, name: str) -> list[str]:
        """All names that Windows takes for this one: more than one only where a Linux program made them."""
        folded = fold(name)
        if folded not in self.folded:
            return []
        return (
            [self.folded[folded]]
            if len(self.folded) == len(self.names)
            else [known for known in self.names if fold(known) == folded]
        )


class LayerStack:
    """The layers, uppermost first. A context manager; not for several threads at once."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._paths = tuple(layers)
        self._roots: list[int] = []
        self._listings: dict[str, Listing | None] = {}
        self._names = 0

    def __enter__(self) -> LayerStack:
        try:
            for path in self._paths:
                self._roots.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        while self._roots:
            os.close(self._roots.pop())

    def listing(self, path: str) -> Listing | None:
        """The directory at a path; None when the stack has none there."""
        if path in self._listings:
            return self._listings[path]
        at, parts = "", path.split("/") if path else []
        current = self._load("")
        for part in parts:
            if current is None:
                return None
            at = f"{at}/{part}" if at else part
            current = self._load(at, current)
        return current

    def find(self, path: str) -> Found | None:
        """What is at a path, spelled exactly."""
        parent, _, name = path.rpartition("/")
        listing = self.listing(parent)
        return None if listing is None else listing.names.get(name)

    def open(self, layer: int, path: str, flags: int) -> int:
        """A file or directory of `C:\\` in one layer; a last link is not followed. The caller closes. Raises OSError."""
        return self.open_beside(layer, _on_disk(path), flags)

    def open_beside(self, layer: int, path: str, flags: int) -> int:
        """The same, by a path relative to the layer's directory."""
        # what should be a file may be a pipe
        patient = 0 if flags & os.O_PATH else os.O_NONBLOCK
        return openat2(self._roots[layer], path, flags=flags | os.O_NOFOLLOW | patient, resolve=_REFUSE)

    def open_uppermost(self, place: str) -> int | None:
        """The uppermost layer's directory at a path relative to the layers. The caller closes."""
        return next((os.dup(descriptor) for _, descriptor in self._showing(place, self.layers)), None)

    def open_parent(self, layer: int, path: str) -> tuple[int, str]:
        """(O_PATH descriptor of the directory that holds a path, the last name). The caller closes. Raises OSError."""
        parent, _, name = path.rpartition("/")
        return self.open(layer, parent, os.O_PATH | os.O_DIRECTORY), name

    def read_link(self, layer: int, path: str) -> str:
        parent, name = self.open_parent(layer, path)
        try:
            return os.readlink(name, dir_fd=parent)
        finally:
            os.close(parent)

    @property
    def layers(self) -> range:
        """Their numbers, uppermost first."""
        return range(len(self._roots))

    def _load(self, path: str, parent: Listing | None = None) -> Listing | None:
        if path in self._listings:
            return self._listings[path]
        if parent is None:
            candidates: Sequence[int] = self._above_drive()
        else:
            found = parent.names.get(path.rpartition("/")[2])
            candidates = parent.sources if found is not None and found.kind is Kind.DIRECTORY else ()
        listing = self._merge(path, candidates)
        if self._names > _KEPT_NAMES:
            self._listings.clear()
            self._names = 0
        self._listings[path] = listing
        self._names += 1 + (len(listing.names) if listing else 0)
        return listing

    def _above_drive(self) -> list[int]:
        """The layers of which something shows through the directories that `C:\\` lies in."""
        candidates = list(self.layers)
        parts = DRIVE.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            candidates = [layer for layer, _ in self._showing("/".join(parts[:count]), candidates)]
        return candidates

    def _showing(self, place: str, candidates: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Of the candidates those whose directory at `place` shows, each with a descriptor that is good until the next."""
        for layer in candidates:
            try:
                descriptor = self.open_beside(layer, place, _DIRECTORY)
            except OSError as error:
                if error.errno in _ABSENT:
                    continue
                if error.errno in _HIDDEN:
                    return
                raise
            try:
                yield layer, descriptor
                if is_opaque(descriptor):
                    return
            finally:
                os.close(descriptor)

    def _merge(self, path: str, candidates: Sequence[int]) -> Listing | None:
        seen: dict[str, Found | None] = {}
        sources: list[int] = []
        for layer, descriptor in self._showing(_on_disk(path), candidates):
            sources.append(layer)
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.name not in seen:
                        kind = _kind(entry)
                        seen[entry.name] = None if kind is None else Found(kind, layer)
        if not sources:
            return None
        names = {name: found for name, found in seen.items() if found is not None}
        folded = {fold(name): name for name in sorted(names, reverse=True)}
        return Listing(names, folded, tuple(sources))


def _on_disk(path: str) -> str:
    return f"{DRIVE}/{path}" if path else DRIVE


def _kind(entry: os.DirEntry[str]) -> Kind | None:
    """None for a whiteout."""
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if entry.is_file(follow_symlinks=False):
        return Kind.FILE
    if entry.is_symlink():
        return Kind.LINK
    with contextlib.suppress(FileNotFoundError):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) and is_whiteout(status):
            return None
    return Kind.OTHER
