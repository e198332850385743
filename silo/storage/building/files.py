"""BuildFiles: the directories of running builds, and layers made over an image without a container.

<data root>/builds/<random>/     one context, download or set of inline files; what a killed daemon left is deleted at its start
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from silo.errors import InvalidRequest
from silo.host.beneath import Links, Root
from silo.host.download import download
from silo.model.accounts import resolve_owner
from silo.model.build import CopyTarget, SourceItem
from silo.model.ids import new_id
from silo.model.image import Image
from silo.model.runtime import Rootfs
from silo.storage.building.copying import copy_item, is_directory, make_directories, spelled
from silo.storage.building.plain import MAXIMUM_ENTRIES, check_whole, open_plain
from silo.storage.building.tree import Digests, Excludes, SourceTree
from silo.storage.extraction import Extraction
from silo.storage.failures import explained
from silo.storage.scratch import Scratches
from silo.storage.streaming import Halt, consume, run_to_end, stream
from silo.storage.tar_tree import write_layer
from silo.storage.trash import Trash
from silo.storage.views import Setting, Shift, Views

_DOWNLOAD_LIMIT_BYTES = 16 << 30
_DOWNLOAD_TIMEOUT_S = 3600.0
_ACCOUNTS_BYTES = 4 << 20
_DRAINED_BYTES = 1 << 20


class BuildFiles:
    """silo.engine.building.ports.BuildFiles."""

    def __init__(
        self,
        directory: Path,
        *,
        scratches: Scratches,
        views: Views,
        trash: Trash,
        layers_of: Callable[[Image], tuple[Path, ...]],
    ) -> None:
        """`layers_of`: an image's layers, topmost first."""
        self._directory = directory
        self._scratches = scratches
        self._views = views
        self._trash = trash
        self._layers_of = layers_of
        self._digests = Digests()

    def clean(self) -> None:
        """Of builds that a killed daemon left."""
        if self._directory.is_dir():
            for entry in list(os.scandir(self._directory)):
                self._trash.throw(Path(entry.path))

    @contextlib.asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[SourceTree]:
        """A context: a tar, compressed or not, unpacked. Everything in it is root's. Raises InvalidRequest, NoSpace."""
        with self._place() as place:
            await consume(chunks, lambda source: _unpack(source, place))
            yield SourceTree(place)

    @contextlib.asynccontextmanager
    async def unpack(self, tree: SourceTree, item: SourceItem) -> AsyncIterator[SourceTree]:
        """The same from a file of another tree."""
        with self._place() as place:

            def unpack(halt: Halt) -> None:
                with Root(tree.directory) as root, open(root.open(item.path, os.O_RDONLY), "rb") as file:
                    _unpack(file, place, halt)

            halt = Halt()
            await run_to_end(lambda: unpack(halt), halt)
            yield SourceTree(place)

    @contextlib.asynccontextmanager
    async def take(self, tree: SourceTree, item: SourceItem) -> AsyncIterator[SourceTree]:
        """A copy of an item by itself, with its owners, in a directory that may be mounted."""
        with self._place() as place:
            halt = Halt()
            target = CopyTarget(path="/", into=True, owner=None)
            await run_to_end(lambda: copy_item(tree.directory, item, place, target, None, halt), halt)
            yield SourceTree(place)

    @contextlib.asynccontextmanager
    async def write(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> AsyncIterator[SourceTree]:
        """Files that the Dockerfile itself holds; a name may have directories."""
        with self._place() as place:
            for name, data in files.items():
                with explained(f"write the inline file {name}"), Root(place) as root:
                    root.locate(name, create_parents=True)
                    with open(root.open_write(name, mode), "wb") as file:
                        file.write(data)
                    root.set_mode(name, mode)
            yield SourceTree(place)

    @contextlib.asynccontextmanager
    async def fetch(self, url: str, *, checksum: str = "") -> AsyncIterator[tuple[SourceTree, str, str]]:
        """(tree with one file, its name, its content type). Mode 0600, time by Last-Modified; `checksum`: sha256:hex.

        Raises InvalidRequest (also: another checksum, no name), Unavailable, NoSpace.
        """
        with self._place() as place:
            halt = Halt()
            name, content_type = await run_to_end(lambda: _fetch(url, place, checksum, halt), halt)
            yield SourceTree(place), name, content_type

    @contextlib.asynccontextmanager
    async def look(self, image: Image) -> AsyncIterator[SourceTree]:
        """An image's root, read-only."""
        view = self._views.read_only(self._layers_of(image))
        try:
            root = await run_to_end(view.__enter__, Halt())
            yield SourceTree(root, self._digests, image.id)
        finally:
            await asyncio.shield(asyncio.to_thread(view.__exit__, None, None, None))

    @contextlib.asynccontextmanager
    async def change(self, image: Image) -> AsyncIterator[Change]:
        """A scratch over an image, which is nobody's container: what is done to it can be read as a layer."""
        name = new_id()
        self._scratches.create(name)
        try:
            scratch = self._scratches.path(name)
            rootfs = Rootfs(layers=self._layers_of(image), scratch=scratch, volatile=True)
            yield Change(self._views, rootfs)
        finally:
            self._scratches.remove(name)

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        place = self._directory / secrets.token_hex(8)
        with explained(f"make {place}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # what is mounted from here belongs to users of containers, too; the directory above is closed
            place.mkdir(mode=0o755)
        try:
            yield place
        finally:
            self._trash.throw(place)


def _unpack(source: BinaryIO, place: Path, halt: Halt | None = None) -> None:
    check = halt.check if halt is not None else _go_on
    with explained("unpack the build's context"), Root(place) as root:
        extraction = Extraction(
            root, "", Shift(), keep_owners=False, no_overwrite_dir_non_dir=False, maximum_entries=MAXIMUM_ENTRIES
        )
        plain = open_plain(source, place, check)
        extraction.run(plain)
        check_whole(plain, extraction.data_end)
        while source.read(_DRAINED_BYTES):
            pass


def _go_on() -> None:
    """A stream that is cut off ends by itself."""


def _fetch(url: str, place: Path, checksum: str, halt: Halt) -> tuple[str, str]:
    staged = place / secrets.token_hex(8)
    found = download(url, staged, limit_bytes=_DOWNLOAD_LIMIT_BYTES, timeout_s=_DOWNLOAD_TIMEOUT_S, check=halt.check)
    if checksum:
        with staged.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if digest != checksum:
            raise InvalidRequest(f"{url} is not what was expected", details=f"its checksum is {digest}, not {checksum}")
    with explained(f"keep what {url} gives"), Root(place) as root:
        name = found.name or "download"
        staged.chmod(0o600)
        moment = int((found.modified_s or 0) * 1e9)
        os.utime(staged, ns=(moment, moment))
        os.rename(staged.name, name, src_dir_fd=root.directory(""), dst_dir_fd=root.directory(""))
    return found.name, found.content_type


class Change:
    """silo.engine.building.ports.Change. Mounted as long as something works on it; never while its layer is read."""

    def __init__(self, views: Views, rootfs: Rootfs) -> None:
        self._views = views
        self._rootfs = rootfs

    async def is_directory(self, path: str) -> bool:
        def look(root_path: Path) -> bool:
            with Root(root_path) as root:
                return is_directory(root, spelled(root, path))

        async with self._views.shown(self._rootfs, None) as root:
            return await asyncio.to_thread(look, root)

    async def find_owner(self, words: str) -> tuple[int, int]:
        """`user[:group]` by the image's own /etc/passwd and /etc/group. Raises InvalidRequest."""
        async with self._views.shown(self._rootfs, None) as root:
            return await asyncio.to_thread(_find_owner, root, words)

    async def copy(
        self, tree: SourceTree, item: SourceItem, target: CopyTarget, *, excluded: Excludes | None = None
    ) -> None:
        halt = Halt()
        async with self._views.shown(self._rootfs, None) as root:
            await run_to_end(lambda: copy_item(tree.directory, item, root, target, excluded, halt), halt)

    async def make_directory(self, path: str, owner: tuple[int, int]) -> bool:
        """With its parents; answers whether anything was missing."""
        async with self._views.shown(self._rootfs, None) as root:
            return await asyncio.to_thread(make_directories, root, path, owner)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keeps the root mounted for several calls."""
        async with self._views.shown(self._rootfs, None):
            yield

    def layer(self) -> AsyncIterator[bytes]:
        """What was done, as an uncompressed OCI layer."""
        upper = self._rootfs.scratch / "upper"
        return stream(_layer(upper, self._views.setting(upper, self._rootfs.layers)))


def _layer(upper: Path, setting: Setting) -> Iterator[bytes]:
    with explained("read what was copied"), Root(upper, links=Links.REFUSE) as root:
        yield from write_layer(root, setting)


def _find_owner(root_path: Path, words: str) -> tuple[int, int]:
    with Root(root_path) as root:
        return resolve_owner(_text(root, "etc/passwd"), _text(root, "etc/group"), words)


def _text(root: Root, path: str) -> str:
    """Nothing when the image has no such file."""
    try:
        with open(root.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(_ACCOUNTS_BYTES).decode(errors="replace")
    except OSError:
        return ""
