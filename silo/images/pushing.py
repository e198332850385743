"""What a push or save sends of an image: as it lies here, or, for Windows, with its base named instead of copied. Blocks.

Linux, or Windows with layers of its own only    as it is, every layer compressed
Windows, pulled                                  as it was pulled; its base's layers are referenced where the registry lacks them
Windows, made on Silo's base                     on the true base, whose manifest and config its registry tells
the last two with `silo_base`                    on Silo's base, whole, for Silo only
"""

from __future__ import annotations

import msgspec

from silo.engine.ports import PullRequest
from silo.errors import CommandFailed, HostError, NotFound, SiloError, Unavailable
from silo.images import windows_push
from silo.images.archive_out import choose_manifest
from silo.images.blobs import Blob, BlobStore
from silo.images.documents import is_unpacked, parse_image, parse_manifest
from silo.images.intake import Intake, KnownBases
from silo.images.making import ImageMaker
from silo.images.records import ImageRecord, ManifestRecord
from silo.images.references import Reference, parse_reference
from silo.images.transport import Transport
from silo.images.watching import CheckedProgress
from silo.images.windows_bases import base_repository
from silo.images.workspace import Operation, Workspace


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it is sent: the `absent` lowest layers are referenced, not here."""

    config: str
    manifest: ManifestRecord
    absent: int = 0


class Pusher:
    """Packs images for others."""

    def __init__(
        self,
        workspace: Workspace,
        blobs: BlobStore,
        intake: Intake,
        maker: ImageMaker,
        transport: Transport,
        known: KnownBases,
    ) -> None:
        self._workspace = workspace
        self._blobs = blobs
        self._intake = intake
        self._maker = maker
        self._transport = transport
        self._known = known

    def push(
        self, operation: Operation, record: ImageRecord, request: PullRequest, progress: CheckedProgress
    ) -> tuple[str, Packed]:
        """Send it; answers the digest as the registry has it, and what was sent. Raises AccessDenied, Unavailable, HostError."""
        packed = self._pack(operation, record, request, progress)
        try:
            return self._transport.push(
                operation, request, packed.config, packed.manifest, packed.absent, progress
            ), packed
        except CommandFailed as error:
            target = parse_reference(request.reference)
            if not packed.absent or not _misses_base(error, packed):
                refused = _refused_reference(error, target) if packed.absent else None
                raise refused or self._transport.explain_push(error, target) from error
        # the registry does not have the base's layers: they are named with where they are
        packed = self.referenced(operation, record, packed.manifest)
        try:
            return self._transport.push(
                operation, request, packed.config, packed.manifest, packed.absent, progress
            ), packed
        except CommandFailed as error:
            raise _refused_reference(error, target) or self._transport.explain_push(error, target) from error

    def _pack(
        self, operation: Operation, record: ImageRecord, request: PullRequest, progress: CheckedProgress
    ) -> Packed:
        if record.base is not None:
            if request.silo_base:
                return self._with_silo_base(operation, record, progress)
            manifest = choose_manifest(record, self._workspace)
            return self._compressed(operation, record, manifest)
        manifest = choose_manifest(record, self._workspace)
        if request.silo_base or not windows_push.is_on_silo_base(record):
            return self._compressed(operation, record, manifest)
        return self._on_true_base(operation, record, manifest, progress)

    def _compressed(self, operation: Operation, record: ImageRecord, manifest: ManifestRecord) -> Packed:
        if any(is_unpacked(layer.media_type) for layer in record.own_layers(manifest)):
            config = Blob(digest=record.id, size=record.config_size)
            manifest = self._maker.compress(operation, config, manifest, absent=_absent(record))
        return Packed(config=record.id, manifest=manifest, absent=_absent(record))

    def referenced(self, operation: Operation, record: ImageRecord, manifest: ManifestRecord) -> Packed:
        """The image with its base's layers as ones that registries need not have; as it is where they are that already."""
        absent = _absent(record)
        if all(layer.urls for layer in manifest.layers[:absent]):
            return Packed(config=record.id, manifest=manifest, absent=absent)
        config = Blob(digest=record.id, size=record.config_size)
        layers = windows_push.reference_layers(manifest.layers, absent, _origin(record))
        return Packed(config=record.id, manifest=self._intake.wrap(operation, config, layers), absent=absent)

    def _on_true_base(
        self,
        operation: Operation,
        record: ImageRecord,
        manifest: ManifestRecord,
        progress: CheckedProgress,
    ) -> Packed:
        reference = windows_push.true_base_reference(record)
        try:
            raw, config = self._transport.fetch_documents(operation, reference, progress)
        except (Unavailable, NotFound, HostError) as error:
            raise _base_unreachable(reference, error) from error
        base = parse_manifest(raw)
        diff_ids = parse_image(config)[1]
        if len(diff_ids) != len(base.layers):
            raise _base_unreachable(reference, HostError("its manifest and config do not fit together"))
        blob = self._blobs.receive(operation, [windows_push.build_true_config(record, config)], what="config")
        layers = windows_push.reference_base_layers(base, reference)
        layers += [self._intake.compress_layer(operation, layer) for layer in manifest.layers[1:]]
        wrapped = self._intake.wrap(operation, blob, layers)
        return Packed(config=blob.digest, manifest=wrapped, absent=len(base.layers))

    def _with_silo_base(self, operation: Operation, record: ImageRecord, progress: CheckedProgress) -> Packed:
        substitute = self._known.substitute(progress)
        below = choose_manifest(substitute, self._workspace)
        manifest = choose_manifest(record, self._workspace)
        config = windows_push.build_silo_config(record, substitute)
        blob = self._blobs.receive(operation, [config], what="config")
        layers = [
            self._intake.compress_layer(operation, layer) for layer in (*below.layers, *record.own_layers(manifest))
        ]
        return Packed(config=blob.digest, manifest=self._intake.wrap(operation, blob, layers))


def _absent(record: ImageRecord) -> int:
    return len(record.base.diff_ids) if record.base else 0


def _origin(record: ImageRecord) -> Reference:
    """The repository that has the layers of an image's base: where it was pulled from, else Microsoft's."""
    assert record.base is not None
    return parse_reference(record.base.origin or base_repository(record.base.family))


def _misses_base(error: CommandFailed, packed: Packed) -> bool:
    names = (layer.digest.removeprefix("sha256:") for layer in packed.manifest.layers[: packed.absent])
    return any(name in error.stderr for name in names)


def _refused_reference(error: CommandFailed, target: Reference) -> SiloError | None:
    """A registry may be set to take no layer that it does not hold itself; many are."""
    if not any(word in error.stderr for word in ("uploading manifest", "invalid URL on layer")):
        return None
    return HostError(
        f"the registry {target.domain} takes no image whose base's layers lie elsewhere",
        details=error.stderr.strip()[-300:],
        hint="let it take them (distribution: validation.manifests.urls.allow), push to a repository that has the base, or send "
        "Silo's base instead: silo push --with-silo-base",
    )


def _base_unreachable(reference: Reference, error: SiloError) -> SiloError:
    return Unavailable(
        f"the image is made on Silo's base in the place of {reference.familiar}; Windows hosts need the true one named, and "
        f"{reference.domain} does not tell it",
        details=str(error),
        hint="push it for Silo only: silo push --with-silo-base, or the setting push_silo_base for other clients",
    )
