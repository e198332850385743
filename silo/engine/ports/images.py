"""Images on this machine, and the layers that only Windows has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from silo.model.image import HistoryEntry, Image, ImageConfig

Progress = Callable[[str, str, int, int], None]
"""Called with (id, status, done, total): id of the item (a layer, may be ""), Docker's status words, bytes."""


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`docker pull`; `platform` empty means linux/amd64 first, then windows/amd64. Credentials are used and never stored."""

    reference: str
    platform: str = ""
    username: str = ""
    password: str = ""
    insecure: bool = False
    base_layers: int | None = None
    """A user's word for how many of the lowest layers are Windows' base, where the image does not tell."""
    silo_base: bool = False
    """Push with Silo's base as it is, for use by Silo only."""


class ImageChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an image: `action` is untagged or deleted."""

    action: str
    subject: str


class UnpackedLayer(Protocol):
    """How far the unpacking of a layer has come."""

    entries: int
    file_bytes: int
    warnings: list[str]


class WindowsLayers(Protocol):
    """The on-registry format of Windows layers (Files/, Hives/), which container images for Windows hosts are made of. Blocks.

    Directories given as `below` are those of the lower layers, topmost first, as a container's root shows them.
    """

    def unpack(
        self, target: Path, chunks: Iterator[bytes], below: Sequence[Path], *, check: Callable[[UnpackedLayer], None]
    ) -> UnpackedLayer:
        """Fill an empty directory with what a container sees of the layer, its registry merged into that of the layers below.

        `chunks`: the uncompressed tar; what follows its end may be left unread.
        `check` is called now and then with what there is so far, and may raise. Raises InvalidRequest naming the member.
        """

    def convert(self, chunks: Iterator[bytes], below: Sequence[Path]) -> Iterator[bytes]:
        """A container's changes (an ordinary uncompressed layer) → an uncompressed layer of this format. Raises InvalidRequest."""


class ImageStore(Protocol):
    """Images on this machine. References are Docker's: `name[:tag][@digest]`, ids and unique id prefixes."""

    def find(self, reference: str, *, platform: str = "") -> Image | None: ...
    def get(self, reference: str, *, platform: str = "") -> Image:
        """Raises ImageNotFound, InvalidRequest (malformed or ambiguous)."""

    def all(self) -> tuple[Image, ...]: ...
    async def pull(self, request: PullRequest, progress: Progress) -> Image: ...
    async def push(self, request: PullRequest, progress: Progress) -> str:
        """Answers the manifest's digest."""

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress, *, base_layers: int | None = None
    ) -> tuple[Image, ...]:
        """A tar of `docker save` or of an OCI layout, maybe compressed. `base_layers`: see PullRequest."""

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]: ...
    async def import_rootfs(
        self, chunks: AsyncIterator[bytes], *, reference: str, platform: str, message: str, config: ImageConfig
    ) -> Image: ...
    async def import_layout(self, path: Path, *, reference: str) -> Image:
        """An OCI layout directory made by Silo itself (the Windows base)."""

    async def commit(
        self,
        base: Image,
        layer: AsyncIterator[bytes] | None,
        *,
        reference: str,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> Image:
        """A new image: `base` plus one layer (an uncompressed OCI layer tar; None changes metadata only)."""

    def tag(self, reference: str, new_reference: str) -> None: ...
    def remove(self, reference: str, *, force: bool, in_use: Mapping[str, str]) -> tuple[ImageChange, ...]:
        """`in_use`: image id → a container that uses it. Raises Conflict."""

    def collect_garbage(self) -> int:
        """Delete blobs and layers no image names (half-made ones too); answers the bytes freed."""

    def disk_usage_bytes(self) -> int: ...
