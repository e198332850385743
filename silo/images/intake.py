"""From blobs in the content store to an image that can run: check that config, manifest and layers agree, unpack the layers.

Every way in (load, pull, import, commit, OCI layout) ends here, so there is one place where an image is judged. Blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from silo.images.records import ImageRecord, LayerRecord, ManifestRecord, PackedLayer, sized_history
from silo.images.workspace import Operation

_CONFIG_TYPES = ("", OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_LAYER_FAMILIES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


class Intake:
    """Makes records; nothing is registered here."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, limits: ImageLimits) -> None:
        self._blobs = blobs
        self._layers = layers
        self._limits = limits

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
            layers=tuple(
                PackedLayer(digest=layer.digest, size=layer.size, media_type=layer.media_type)
                for layer in manifest.layers
            ),
        )

    def wrap(self, operation: Operation, config: Blob, layers: Sequence[Descriptor]) -> ManifestRecord:
        """A manifest for a config and packed layers that came without one."""
        head = Descriptor(digest=config.digest, size=config.size, media_type=OCI_CONFIG)
        manifest = self.store_manifest(operation, build_manifest(head, list(layers)), OCI_MANIFEST)
        return msgspec.structs.replace(manifest, made_here=True)

    def describe_layer(self, blob: Blob) -> Descriptor:
        """A packed layer of the content store, with the type that its first bytes tell."""
        head = next(iter(self._blobs.chunks(blob.digest)), b"")
        kind = detect_compression(head)
        suffix = "" if kind is Compression.NONE else f"+{kind.value}"
        return Descriptor(digest=blob.digest, size=blob.size, media_type=OCI_LAYER + suffix)

    def compress_layer(self, operation: Operation, layer: PackedLayer) -> Descriptor:
        """The layer as a manifest for a registry names it: gzip unless it is compressed already."""
        if not is_unpacked(layer.media_type):
            return Descriptor(digest=layer.digest, size=layer.size, media_type=oci_layer_type(layer.media_type))
        packed = self._blobs.receive(operation, gzip_pieces(self._blobs.chunks(layer.digest)), what="layer")
        return Descriptor(digest=packed.digest, size=packed.size, media_type=OCI_LAYER + "+gzip")

    def assemble(
        self, operation: Operation, manifest: ManifestRecord, config_digest: str, progress: Progress, *, status: str
    ) -> ImageRecord:
        """Unpack what is not unpacked yet; answers the record, without tags. `status`: Docker's word shown per layer."""
        raw_config = self._blobs.read(config_digest)
        raw, diff_ids = parse_image(raw_config)
        if len(diff_ids) != len(manifest.layers):
            raise InvalidRequest(
                f"the image names {len(diff_ids)} layers in its config and {len(manifest.layers)} in its manifest"
            )
        layers = []
        for diff_id, packed in zip(diff_ids, manifest.layers, strict=True):
            layers.append(self._unpack(operation, diff_id, packed, progress, status))
        return ImageRecord(
            id=config_digest,
            config_size=len(raw_config),
            platform=platform_of(raw),
            config=image_config(raw),
            layers=tuple(layers),
            manifests=(manifest,),
            created=raw.created or "",
            author=raw.author or "",
            comment=raw.comment or "",
            os_features=tuple(raw.os_features or ()),
            history=sized_history(image_history(raw), tuple(layers)),
        )

    def _unpack(
        self, operation: Operation, diff_id: str, packed: PackedLayer, progress: Progress, status: str
    ) -> LayerRecord:
        short = diff_id.removeprefix("sha256:")[:12]

        def on_progress(done: int) -> None:
            progress(short, status, done, packed.size)

        size = self._layers.ensure(
            operation,
            diff_id,
            lambda: self._blobs.chunks(packed.digest),
            packed_bytes=packed.size,
            on_progress=on_progress,
        )
        return LayerRecord(diff_id=diff_id, size_bytes=size)
