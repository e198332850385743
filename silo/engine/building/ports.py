"""What building needs besides the engine's other ports: images of single steps, and files without a container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from silo.engine.ports import ImageStore
from silo.model.build import CopyTarget, SourceItem
from silo.model.image import HistoryEntry, Image, ImageConfig

Excludes = Callable[[str], bool]
"""Whether a path within a copied directory is left out."""


class StepStore(ImageStore, Protocol):
    """Images, and what only the steps of builds need of them."""

    def children(self, image_id: str) -> tuple[Image, ...]:
        """What was committed from an image."""

    async def empty(self, platform: str) -> Image:
        """The image of nothing that `FROM scratch` begins with; the same each time. `platform` empty is Linux on this machine."""

    async def extend(self, base: Image, source: Image, *, config: ImageConfig, entry: HistoryEntry) -> Image:
        """`base` plus the layer of `source` that follows those of `base` (none if `entry` has none), which are the same."""

    def check_tag(self, reference: str) -> None:
        """Raises InvalidRequest for what cannot be given to an image as its name."""


class SourceTree(Protocol):
    """A directory that COPY and ADD take from. Paths are POSIX, relative to it, and never lead out of it."""

    directory: Path

    async def read(self, path: str, *, limit_bytes: int) -> bytes:
        """Raises NotFound, InvalidRequest (larger than the limit, no file)."""

    async def remove(self, paths: Sequence[str]) -> None: ...
    async def find(self, pattern: str, *, archives: bool, excluded: Excludes | None = None) -> tuple[SourceItem, ...]:
        """What a source word means; empty where a pattern matches nothing. `archives`: tars are told apart.

        Raises NotFound for a name that is not there.
        """


class Change(Protocol):
    """A writable root over an image that becomes a layer; no container, no process."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Keeps the root at hand for several calls; closed before `layer`."""

    async def is_directory(self, path: str) -> bool: ...
    async def find_owner(self, words: str) -> tuple[int, int]:
        """`user[:group]` → ids, by the image's own files. Raises InvalidRequest."""

    async def copy(self, tree: Any, item: SourceItem, target: CopyTarget, *, excluded: Excludes | None = None) -> None:
        """`tree` is a SourceTree of the same BuildFiles. Raises InvalidRequest, NoSpace."""

    async def make_directory(self, path: str, owner: tuple[int, int]) -> bool:
        """With its parents; answers whether anything was missing."""

    def layer(self) -> AsyncIterator[bytes]:
        """An uncompressed OCI layer."""


class BuildFiles(Protocol):
    """Files of builds. What a context manager gave out is gone when it ends."""

    def receive(self, chunks: AsyncIterator[bytes]) -> AbstractAsyncContextManager[SourceTree]:
        """A context: a tar, compressed or not. Raises InvalidRequest, NoSpace."""

    def unpack(self, tree: Any, item: SourceItem) -> AbstractAsyncContextManager[SourceTree]:
        """A context that is a file of another tree. Raises InvalidRequest, NoSpace."""

    def write(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> AbstractAsyncContextManager[SourceTree]:
        """Files that the Dockerfile itself holds."""

    def fetch(self, url: str, *, checksum: str = "") -> AbstractAsyncContextManager[tuple[SourceTree, str, str]]:
        """(tree of one file, its name or "", its content type). Raises InvalidRequest, Unavailable, NoSpace."""

    def look(self, image: Image) -> AbstractAsyncContextManager[SourceTree]:
        """An image's root."""

    def take(self, tree: Any, item: SourceItem) -> AbstractAsyncContextManager[SourceTree]:
        """A copy of an item by itself, owners kept, which may be mounted."""

    def change(self, image: Image) -> AbstractAsyncContextManager[Change]: ...


class BuildOutput(Protocol):
    """Where a build tells how it goes on."""

    async def say(self, text: str) -> None:
        """Text with its line ends, as `docker build` prints it."""

    async def tell_image(self, image_id: str) -> None:
        """The image that was built."""

    def report(self, item: str, status: str, done: int, total: int) -> None:
        """Progress of a pull; see silo.engine.ports.Progress."""
