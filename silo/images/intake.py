"""From blobs in the content store to an image that can run: check that config, manifest and layers agree, unpack the layers.

Every way in (load, pull, import, commit, OCI layout) ends here, so there is one place where an image is judged. Blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from silo.engine.ports import Progress
from silo.errors import InvalidRequest, Unsupported
from silo.images.blobs import Blob, BlobStore
from silo.images.compose import oci_layer_type
from silo.images.compression import Compression, detect_compression, gzip_pieces
from silo.images.documents import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    build_manifest,
    image_config,
    image_history,
    is_unpacked,
    parse_image,
    parse_manifest,
    platform_of,
)
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.records import BaseRecord, ImageRecord, LayerRecord, ManifestRecord, PackedLayer, sized_history
from silo.images.windows_bases import build_of, check_build, find_base
from silo.images.workspace import Operation

_CONFIG_TYPES = ("", OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_LAYER_FAMILIES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


class KnownBases(Protocol):
    """What the store knows of Windows' bases; called from threads."""

    @property
    def os_version(self) -> str:
        """The Windows version that Silo's base claims, such as 10.0.20348.2700."""

    def substitute(self, progress: Progress) -> ImageRecord:
        """Silo's own base, built if need be. Raises NotFound, and what the builder raises."""

    def count(self, diff_ids: Sequence[str]) -> int:
        """How many of an image's layers are a base that another image was made on."""


class Intake:
    """Makes records; nothing is registered here."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, limits: ImageLimits, known: KnownBases) -> None:
        self._blobs = blobs
        self._layers = layers
        self._limits = limits
        self._known = known

    def store_manifest(self, operation: Operation, raw: bytes, media_type: str) -> ManifestRecord:
        """Judge a manifest and keep it, byte for byte. Raises InvalidRequest, Unsupported."""
        manifest = parse_manifest(raw)
        if manifest.config.media_type not in _CONFIG_TYPES:
            raise InvalidRequest(f"this is no container image but {manifest.config.media_type}")
        if len(manifest.layers) > self._limits.layers_per_image:
            raise InvalidRequest(
                f"the image has {len(manifest.layers)} layers", details=f"at most {self._limits.layers_per_image}"
            )
        for layer in manifest.layers:
            if not layer.media_type.startswith(_LAYER_FAMILIES):
                raise Unsupported(f"the image has a layer of the type {layer.media_type!r}")
        blob = self._blobs.receive(operation, [raw], what="manifest")
        return ManifestRecord(
            digest=blob.digest,
            media_type=media_type,
            size=blob.size,
            layers=tuple(map(PackedLayer.of, manifest.layers)),
        )

    def wrap(self, operation: Operation, config: Blob, layers: Sequence[Descriptor]) -> ManifestRecord:
        """A manifest for a config and packed layers that came without one."""
        head = Descriptor(digest=config.digest, size=config.size, media_type=OCI_CONFIG)
        manifest = self.store_manifest(operation, build_manifest(head, list(layers)), OCI_MANIFEST)
        return msgspec.structs.replace(manifest, made_here=True)

    def describe_layer(self, blob: Blob) -> Descriptor:
        """A packed layer of the content store, with the type that its first bytes tell."""
        return describe_packed(blob, next(iter(self._blobs.chunks(blob.digest)), b""))

    def compress_layer(self, operation: Operation, layer: PackedLayer) -> Descriptor:
        """The layer as a manifest for a registry names it: gzip unless it is compressed already."""
        if not is_unpacked(layer.media_type) or layer.urls:
            return layer.descriptor(media_type=oci_layer_type(layer.media_type))
        packed = self._blobs.receive(operation, gzip_pieces(self._blobs.chunks(layer.digest)), what="layer")
        return Descriptor(digest=packed.digest, size=packed.size, media_type=OCI_LAYER + "+gzip")

    def find_base(
        self,
        operation: Operation,
        manifest: ManifestRecord,
        config: bytes,
        progress: Progress,
        *,
        told: int | None = None,
        any_build: bool = False,
        origin: str = "",
    ) -> BaseRecord | None:
        """What of an image Silo's base takes the place of; its directories are pinned.

        `told`: see windows_bases.find_base. `any_build`: also that of a Windows newer than Silo's base. `origin`: see BaseRecord.
        Raises InvalidRequest, Unsupported (a newer one), NotFound (Silo's base cannot be built).
        """
        raw, diff_ids = parse_image(config)
        if told is None:
            told = self._known.count(diff_ids) or None
        base = find_base(raw, [layer.media_type for layer in manifest.layers], told=told)
        if base is None:
            return None
        if not any_build:
            check_build("the image", build_of(base.os_version), self._known.os_version)
        substitute = self._known.substitute(progress)
        for layer in substitute.stack:
            operation.pin(layer.place)
        return BaseRecord(
            family=base.family,
            os_version=base.os_version,
            diff_ids=diff_ids[: base.layers],
            substitute=substitute.id,
            layers=substitute.stack,
            origin=origin,
        )

    def assemble(
        self,
        operation: Operation,
        manifest: ManifestRecord,
        config_digest: str,
        progress: Progress,
        *,
        status: str,
        base: BaseRecord | None = None,
    ) -> ImageRecord:
        """Unpack what is not unpacked yet; answers the record, without tags. `status`: Docker's word shown per layer.

        `base`: what `find_base` found.
        """
        raw_config = self._blobs.read(config_digest)
        raw, diff_ids = parse_image(raw_config)
        if len(diff_ids) != len(manifest.layers):
            raise InvalidRequest(
                f"the image names {len(diff_ids)} layers in its config and {len(manifest.layers)} in its manifest"
            )
        replaced = len(base.diff_ids) if base else 0
        stack = list(base.layers) if base else []
        for diff_id in diff_ids[:replaced]:
            progress(diff_id[7:19], "Replaced by Silo's base", 0, 0)
        for diff_id, packed in list(zip(diff_ids, manifest.layers, strict=True))[replaced:]:
            stack.append(
                self._unpack(operation, diff_id, packed, stack if raw.os == "windows" else None, progress, status)
            )
        layers = tuple(stack[len(base.layers) if base else 0 :])
        return ImageRecord(
            id=config_digest,
            config_size=len(raw_config),
            platform=platform_of(raw),
            config=image_config(raw),
            layers=layers,
            manifests=(manifest,),
            created=raw.created or "",
            author=raw.author or "",
            comment=raw.comment or "",
            os_features=tuple(raw.os_features or ()),
            history=sized_history(image_history(raw), (*_replaced(base), *layers)),
            base=base,
        )

    def _unpack(
        self,
        operation: Operation,
        diff_id: str,
        packed: PackedLayer,
        below: Sequence[LayerRecord] | None,
        progress: Progress,
        status: str,
    ) -> LayerRecord:
        short = diff_id.removeprefix("sha256:")[:12]

        def on_progress(done: int) -> None:
            progress(short, status, done, packed.size)

        def chunks() -> Iterator[bytes]:
            return self._blobs.chunks(packed.digest)

        if below is None:
            return self._layers.ensure(operation, diff_id, chunks, packed_bytes=packed.size, on_progress=on_progress)
        return self._layers.ensure_windows(
            operation, diff_id, below, chunks, packed_bytes=packed.size, on_progress=on_progress
        )


def describe_packed(blob: Blob, head: bytes) -> Descriptor:
    """A packed layer by its first bytes. Raises InvalidRequest for what no layer is packed by."""
    kind = detect_compression(head)
    suffix = "" if kind is Compression.NONE else f"+{kind.value}"
    return Descriptor(digest=blob.digest, size=blob.size, media_type=OCI_LAYER + suffix)


def _replaced(base: BaseRecord | None) -> tuple[LayerRecord, ...]:
    """The base's steps in the history: Silo's takes its room at the first, nothing at others."""
    if base is None:
        return ()
    size = sum(layer.size_bytes for layer in base.layers)
    return tuple(
        LayerRecord(diff_id=diff_id, size_bytes=0 if number else size) for number, diff_id in enumerate(base.diff_ids)
    )
