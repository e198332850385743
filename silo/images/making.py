"""Images made here: from a root file system (import), from an image and a layer (commit), from a layout directory. Blocks."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from silo.engine.ports import Progress
from silo.errors import InvalidRequest
from silo.images.blobs import Blob, BlobStore
from silo.images.compose import build_image_config, oci_layer_type
from silo.images.compression import decompress, is_layer_compression
from silo.images.documents import INDEX_TYPES, Descriptor, document_type, parse_index, parse_manifest
from silo.images.intake import Intake
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.records import BaseRecord, ImageRecord, ManifestRecord
from silo.images.references import Reference
from silo.images.windows_bases import KnownBase
from silo.images.windows_push import SUBSTITUTE_STEP
from silo.images.workspace import Operation
from silo.model.image import BASE_REFERENCE_LABEL, HistoryEntry, ImageConfig
from silo.model.platform import Platform


def now() -> str:
    """RFC 3339 with a Z, as in image documents."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class ImageMaker:
    """Makes records of new images; nothing is registered here."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, intake: Intake, limits: ImageLimits) -> None:
        self._blobs = blobs
        self._layers = layers
        self._intake = intake
        self._limits = limits

    def import_rootfs(
        self, operation: Operation, chunks: Iterator[bytes], *, platform: Platform, config: ImageConfig, message: str
    ) -> ImageRecord:
        """Any tar, compressed or not → an image of one layer."""
        packed, diff_id = self._add_layer(operation, chunks)
        created = now()
        entry = HistoryEntry(created=created, comment=message or "Imported from -")
        return self._build(
            operation,
            platform=platform,
            config=config,
            packed=[packed],
            diff_ids=[diff_id],
            history=[entry],
            created=created,
            comment=message,
        )

    def commit(
        self,
        operation: Operation,
        base: ImageRecord,
        manifest: ManifestRecord,
        chunks: Iterator[bytes] | None,
        *,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> ImageRecord:
        """`base` as packed in `manifest`, plus one layer."""
        packed = [layer.descriptor(media_type=oci_layer_type(layer.media_type)) for layer in manifest.layers]
        diff_ids = list(base.diff_ids)
        for digest in base.content():
            operation.pin(digest)
        if chunks is not None:
            if base.platform.os == "windows":
                chunks = self._layers.convert(chunks, base.stack)
                added, diff_id = self._add_blob(operation, chunks)
            else:
                added, diff_id = self._add_layer(operation, chunks)
            packed.append(added)
            diff_ids.append(diff_id)
        created = entry.created or now()
        entry = msgspec.structs.replace(entry, created=created, empty_layer=chunks is None)
        record = self._build(
            operation,
            platform=base.platform,
            os_features=base.os_features,
            config=config,
            packed=packed,
            diff_ids=diff_ids,
            history=[*base.history, entry],
            created=created,
            author=entry.author,
            comment=entry.comment,
            base=base.base,
        )
        return msgspec.structs.replace(record, parent=base.id)

    def extend(
        self,
        operation: Operation,
        base: ImageRecord,
        manifest: ManifestRecord,
        source: ImageRecord,
        source_manifest: ManifestRecord,
        *,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> ImageRecord:
        """`base` plus the layer of `source` that comes after those of `base`, or none when `entry` has none."""
        have = len(base.diff_ids)
        count = have + (0 if entry.empty_layer else 1)
        packed = [*manifest.layers, *source_manifest.layers[have:count]]
        record = self._build(
            operation,
            platform=base.platform,
            os_features=base.os_features,
            config=config,
            packed=[layer.descriptor(media_type=oci_layer_type(layer.media_type)) for layer in packed],
            diff_ids=[*base.diff_ids, *source.diff_ids[have:count]],
            history=[*base.history, entry],
            created=entry.created or now(),
            author=entry.author,
            comment=entry.comment,
            base=base.base,
        )
        return msgspec.structs.replace(record, parent=base.id)

    def empty(self, operation: Operation, platform: Platform) -> ImageRecord:
        """An image of nothing, the same each time: what `FROM scratch` begins with."""
        return self._build(
            operation, platform=platform, config=ImageConfig(), packed=[], diff_ids=[], history=[], created=""
        )

    def _add_blob(self, operation: Operation, chunks: Iterator[bytes]) -> tuple[Descriptor, str]:
        """A plain tar, whose digest is its diff id; unpacked when its image is put together."""
        blob = self._blobs.receive(operation, chunks, what="layer")
        return self._intake.describe_layer(blob), blob.digest

    def _add_layer(self, operation: Operation, chunks: Iterator[bytes]) -> tuple[Descriptor, str]:
        first = next(chunks, b"")
        stream = itertools.chain((first,), chunks)
        if not is_layer_compression(first):
            stream = itertools.chain(decompress(stream))
        blob = self._blobs.receive(operation, stream, what="layer")
        diff_id, _ = self._layers.unpack_unknown(operation, self._blobs.chunks(blob.digest), packed_bytes=blob.size)
        return self._intake.describe_layer(blob), diff_id

    def _build(
        self,
        operation: Operation,
        *,
        platform: Platform,
        config: ImageConfig,
        packed: Sequence[Descriptor],
        diff_ids: Sequence[str],
        history: Sequence[HistoryEntry],
        created: str,
        os_features: Sequence[str] = (),
        author: str = "",
        comment: str = "",
        base: BaseRecord | None = None,
    ) -> ImageRecord:
        document = build_image_config(
            platform=platform,
            os_features=os_features,
            config=config,
            diff_ids=diff_ids,
            history=history,
            created=created,
            author=author,
            comment=comment,
        )
        blob = self._blobs.receive(operation, [document], what="config")
        manifest = self._intake.wrap(operation, blob, packed)
        return self._intake.assemble(operation, manifest, blob.digest, _silent, status="", base=base)

    def adopt_layout(self, operation: Operation, path: Path, progress: Progress) -> list[ImageRecord]:
        """All images of an OCI layout directory; blobs are hard-linked where the file system is the same."""
        records = []
        for descriptor in parse_index(self._read(path / "index.json")).manifests:
            if descriptor.media_type in INDEX_TYPES:
                raise InvalidRequest(f"the layout {path} holds an index within its index")
            raw = self._read(_blob(path, descriptor.digest))
            manifest = parse_manifest(raw)
            for blob in (manifest.config, *manifest.layers):
                self._blobs.adopt(operation, _blob(path, blob.digest), blob.digest, what="blob")
            record = self._intake.store_manifest(operation, raw, document_type(raw, descriptor.media_type))
            if record.digest != descriptor.digest:
                raise InvalidRequest(
                    f"the layout {path} is damaged: {descriptor.digest} has the digest {record.digest}"
                )
            records.append(
                self._intake.assemble(operation, record, manifest.config.digest, progress, status="Loading layer")
            )
        if not records:
            raise InvalidRequest(f"the layout {path} holds no image")
        return records

    def _read(self, path: Path) -> bytes:
        try:
            if path.stat().st_size > self._limits.document_bytes:
                raise InvalidRequest(f"{path} is too long for a document")
            return path.read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{path.parent} is no OCI layout", details=str(error)) from error

    def substitute_base(
        self, operation: Operation, silo_base: ImageRecord, reference: Reference, known: KnownBase
    ) -> ImageRecord:
        """An image for the name of a Windows base: Silo's own, with the user that this one has; the same each time."""
        for digest in silo_base.content():
            operation.pin(digest)
        manifest = silo_base.manifests[0]
        config = msgspec.structs.replace(
            silo_base.config,
            user="ContainerUser" if known.family == "nanoserver" else "ContainerAdministrator",
            labels=silo_base.config.labels | {BASE_REFERENCE_LABEL: reference.canonical},
        )
        step = HistoryEntry(
            created=silo_base.created, created_by=f"{SUBSTITUTE_STEP} {reference.familiar}", empty_layer=True
        )
        return self._build(
            operation,
            platform=silo_base.platform,
            config=config,
            packed=[layer.descriptor() for layer in manifest.layers],
            diff_ids=silo_base.diff_ids,
            history=[silo_base.history[0], step],
            created=silo_base.created,
        )

    def compress(
        self, operation: Operation, config: Blob, manifest: ManifestRecord, *, absent: int = 0
    ) -> ManifestRecord:
        """The same image with every layer compressed, as registries expect it; the same each time. The `absent` lowest layers,
        which are not here, are named as they were."""
        packed = [layer.descriptor(media_type=oci_layer_type(layer.media_type)) for layer in manifest.layers[:absent]]
        packed += [self._intake.compress_layer(operation, layer) for layer in manifest.layers[absent:]]
        return self._intake.wrap(operation, config, packed)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _silent(item: str, status: str, done: int, total: int) -> None:
    del item, status, done, total
