"""What the store keeps of an image in the state: one row for each image, by its id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from silo.images.references import parse_reference
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.platform import Platform


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as a manifest names it."""

    digest: str
    size: int
    media_type: str


class ManifestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest of an image: the same image may be packed in several ways."""

    digest: str
    media_type: str
    size: int
    layers: tuple[PackedLayer, ...]
    made_here: bool = False
    """Silo wrote it, because the image came without one (an old archive) or was made here."""


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An unpacked layer."""

    diff_id: str
    size_bytes: int


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the digest of the config blob; `tags` and `digests` are canonical references."""

    id: str
    config_size: int
    platform: Platform
    config: ImageConfig
    layers: tuple[LayerRecord, ...]
    manifests: tuple[ManifestRecord, ...]
    created: str = ""
    author: str = ""
    comment: str = ""
    os_features: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    parent: str = ""
    """The image this one was committed from, as long as that is in the store."""

    def content(self) -> set[str]:
        """Digests of everything the image needs: blobs and unpacked layers."""
        found = {self.id, *(layer.diff_id for layer in self.layers)}
        for manifest in self.manifests:
            found.add(manifest.digest)
            found.update(layer.digest for layer in manifest.layers)
        return found


class SavedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image to write, and the canonical references to write with it (none when it was asked for by id)."""

    record: ImageRecord
    tags: tuple[str, ...]


class _Places(Protocol):
    def layer_path(self, diff_id: str) -> Path: ...


def build_image(record: ImageRecord, places: _Places) -> Image:
    """The model's view of a record."""
    return Image(
        id=record.id,
        platform=record.platform,
        config=record.config,
        created=record.created,
        author=record.author,
        comment=record.comment,
        layers=tuple(layer.diff_id for layer in record.layers),
        layer_paths=tuple(places.layer_path(layer.diff_id) for layer in record.layers),
        size_bytes=sum(layer.size_bytes for layer in record.layers),
        tags=familiar(record.tags),
        digests=familiar(record.digests),
        history=record.history,
        os_features=record.os_features,
        parent=record.parent,
    )


def familiar(references: Iterable[str]) -> tuple[str, ...]:
    """Canonical references as users write them, sorted."""
    return tuple(sorted(parse_reference(reference).familiar for reference in references))


def sized_history(history: tuple[HistoryEntry, ...], layers: tuple[LayerRecord, ...]) -> tuple[HistoryEntry, ...]:
    """Give each step that made a layer its layer's size; a history that does not match the layers keeps what fits."""
    sizes = iter(layer.size_bytes for layer in layers)
    return tuple(
        entry if entry.empty_layer else msgspec.structs.replace(entry, size_bytes=next(sizes, 0)) for entry in history
    )
