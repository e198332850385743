"""What the store keeps of an image in the state: one row for each image, by its id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from silo.images.documents import Descriptor
from silo.images.references import parse_reference
from silo.model.image import HistoryEntry, Image, ImageBase, ImageConfig
from silo.model.platform import Platform

BASE_LABEL = "dev.silo.base.key"
"""What Silo's Windows base is known by."""


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as a manifest names it."""

    digest: str
    size: int
    media_type: str
    urls: tuple[str, ...] = ()
    """Where else it can be had: of layers that registries do not distribute."""

    @classmethod
    def of(cls, descriptor: Descriptor) -> PackedLayer:
        return cls(
            digest=descriptor.digest,
            size=descriptor.size,
            media_type=descriptor.media_type,
            urls=tuple(descriptor.urls or ()),
        )

    def descriptor(self, *, media_type: str = "") -> Descriptor:
        """As a manifest names it, of another family's type if one is given."""
        return Descriptor(
            digest=self.digest, size=self.size, media_type=media_type or self.media_type, urls=list(self.urls) or None
        )


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
    key: str = ""
    """The name of its directory, where that is not the diff id: a Windows layer lies as the layers below it spell it."""

    @property
    def place(self) -> str:
        return self.key or self.diff_id


class BaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The Windows base of an image, and what runs in its place: the unpacked `layers` of the image `substitute`."""

    family: str
    os_version: str
    diff_ids: tuple[str, ...]
    substitute: str
    layers: tuple[LayerRecord, ...]
    origin: str = ""
    """The repository that has the base's layers, where it was pulled from one."""


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
    unsynced: str = ""
    """The boot that it was registered in, as long as not all of it is on the disk (silo.images.syncing)."""
    taken: tuple[tuple[str, str], ...] = ()
    """While unsynced: names that it took from others, and the ids of those."""
    base: BaseRecord | None = None
    """Where Silo's base takes the place of Windows'; `layers` are then those above it."""

    @property
    def stack(self) -> tuple[LayerRecord, ...]:
        """Every directory that a container sees, lowest first."""
        return (*(self.base.layers if self.base else ()), *self.layers)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """As the config names them."""
        return (*(self.base.diff_ids if self.base else ()), *(layer.diff_id for layer in self.layers))

    def own_layers(self, manifest: ManifestRecord) -> tuple[PackedLayer, ...]:
        """The packed layers that the store holds: all but the base's."""
        return manifest.layers[len(self.base.diff_ids) if self.base else 0 :]

    def content(self) -> set[str]:
        """Digests of everything the image needs: blobs and unpacked layers."""
        found = {self.id, *(layer.place for layer in self.stack)}
        for manifest in self.manifests:
            found.add(manifest.digest)
            found.update(layer.digest for layer in manifest.layers)
        return found


def is_silo_base(record: ImageRecord) -> bool:
    """Whether it is Silo's Windows base itself, and nothing on it (see silo.windows.base.oci_layout)."""
    return BASE_LABEL in record.config.labels and record.base is None and len(record.layers) == 1


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
        layers=record.diff_ids,
        layer_paths=tuple(places.layer_path(layer.place) for layer in record.stack),
        layer_sizes=tuple(layer.size_bytes for layer in record.stack),
        size_bytes=sum(layer.size_bytes for layer in record.stack),
        tags=familiar(record.tags),
        digests=familiar(record.digests),
        history=record.history,
        os_features=record.os_features,
        parent=record.parent,
        base=_image_base(record.base) if record.base else None,
    )


def _image_base(base: BaseRecord) -> ImageBase:
    return ImageBase(
        family=base.family, os_version=base.os_version, layers=len(base.diff_ids), substitute=base.substitute
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
