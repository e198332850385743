"""The JSON of images: index, manifest and config, of OCI and of Docker's schema 2; read with suspicion, written canonically.

Sources: opencontainers/image-spec `config.md`, `manifest.md`, `image-index.md`; distribution `manifest-v2-2.md`; Docker's
additions to the config (Healthcheck, ArgsEscaped, OnBuild, Shell, StopTimeout).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from silo.errors import InvalidRequest, Unsupported
from silo.images.references import is_digest
from silo.model.image import Healthcheck, HistoryEntry, ImageConfig
from silo.model.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
_UNPACKED_LAYERS = (OCI_LAYER, DOCKER_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar")
_NANOSECONDS = 1_000_000_000

T = TypeVar("T")


class RawPlatform(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)


class Descriptor(msgspec.Struct):
    """A reference to a blob."""

    digest: str
    size: int
    media_type: str = msgspec.field(name="mediaType", default="")
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: RawPlatform | None = None


class Manifest(msgspec.Struct):
    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = msgspec.field(name="schemaVersion", default=2)
    media_type: str = msgspec.field(name="mediaType", default="")


class Index(msgspec.Struct):
    manifests: list[Descriptor]
    media_type: str = msgspec.field(name="mediaType", default="")


class _RawHealthcheck(msgspec.Struct, rename="pascal"):
    test: list[str] | None = None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class _RawContainer(msgspec.Struct, rename="pascal"):
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    healthcheck: _RawHealthcheck | None = None
    shell: list[str] | None = None
    args_escaped: bool | None = None
    on_build: list[str] | None = None


class _RawHistory(msgspec.Struct):
    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool | None = None


class _RawRootfs(msgspec.Struct):
    diff_ids: list[str] | None = None


class RawImage(msgspec.Struct):
    """An image's config document."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    config: _RawContainer | None = None
    rootfs: _RawRootfs | None = None
    history: list[_RawHistory] | None = None


class ArchiveItem(msgspec.Struct, rename="pascal"):
    """One image of the manifest.json of `docker save`."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def decode(untrusted: bytes, kind: type[T], what: str) -> T:
    """JSON of a shape. Raises InvalidRequest that names the document."""
    try:
        return msgspec.json.decode(untrusted, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the {what} is not what it should be", details=str(error)) from error


def _check_descriptor(descriptor: Descriptor, what: str) -> None:
    if not is_digest(descriptor.digest):
        raise InvalidRequest(f"the {what} names {descriptor.digest[:80]!r}, which is no sha256 digest")
    if descriptor.size < 0:
        raise InvalidRequest(f"the {what} names a blob of negative size")


def parse_index(untrusted: bytes, what: str = "image index") -> Index:
    index = decode(untrusted, Index, what)
    for descriptor in index.manifests:
        _check_descriptor(descriptor, what)
    return index


def parse_manifest(untrusted: bytes, what: str = "image manifest") -> Manifest:
    """Raises InvalidRequest, Unsupported (schema 1)."""
    version = decode(untrusted, _Version, what)
    if version.schema_version == 1:
        raise Unsupported(
            f"the {what} is of Docker's schema 1, which registries stopped using in 2019", hint="push the image anew"
        )
    manifest = decode(untrusted, Manifest, what)
    _check_descriptor(manifest.config, what)
    for layer in manifest.layers:
        _check_descriptor(layer, what)
    return manifest


class _Version(msgspec.Struct):
    schema_version: int = msgspec.field(name="schemaVersion", default=2)


class _TypeOnly(msgspec.Struct):
    media_type: str = msgspec.field(name="mediaType", default="")
    manifests: Any = None


def document_type(untrusted: bytes, stated: str = "") -> str:
    """The media type of a manifest or index: the document's own word, else the descriptor's, else by its shape."""
    raw = decode(untrusted, _TypeOnly, "manifest")
    return raw.media_type or stated or (OCI_INDEX if raw.manifests is not None else OCI_MANIFEST)


def parse_image(untrusted: bytes) -> tuple[RawImage, tuple[str, ...]]:
    """A config document and its diff ids."""
    raw = decode(untrusted, RawImage, "image config")
    diff_ids = tuple((raw.rootfs.diff_ids if raw.rootfs else None) or ())
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise InvalidRequest(f"the image config names the layer {diff_id[:80]!r}, which is no sha256 digest")
    return raw, diff_ids


def platform_of(raw: RawImage | RawPlatform) -> Platform:
    return Platform(
        os=raw.os or "linux",
        architecture=raw.architecture or "amd64",
        os_version=raw.os_version or "",
        variant=raw.variant or "",
    )


def image_config(raw: RawImage) -> ImageConfig:
    """How containers of the image run."""
    container = raw.config or _RawContainer()
    return ImageConfig(
        user=container.user or "",
        env=tuple(container.env or ()),
        entrypoint=tuple(container.entrypoint or ()),
        cmd=tuple(container.cmd or ()),
        working_dir=container.working_dir or "",
        exposed_ports=tuple(sorted(container.exposed_ports or ())),
        volumes=tuple(sorted(container.volumes or ())),
        labels=dict(container.labels or {}),
        stop_signal=container.stop_signal or "",
        stop_timeout_s=container.stop_timeout,
        healthcheck=_healthcheck(container.healthcheck),
        shell=tuple(container.shell or ()),
        args_escaped=bool(container.args_escaped),
        on_build=tuple(container.on_build or ()),
    )


def _healthcheck(raw: _RawHealthcheck | None) -> Healthcheck | None:
    if raw is None:
        return None
    default = Healthcheck()
    return Healthcheck(
        test=tuple(raw.test or ()),
        interval_s=raw.interval / _NANOSECONDS if raw.interval else default.interval_s,
        timeout_s=raw.timeout / _NANOSECONDS if raw.timeout else default.timeout_s,
        start_period_s=(raw.start_period or 0) / _NANOSECONDS,
        start_interval_s=raw.start_interval / _NANOSECONDS if raw.start_interval else default.start_interval_s,
        retries=raw.retries or default.retries,
    )


def image_history(raw: RawImage) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(
            created=entry.created or "",
            created_by=entry.created_by or "",
            comment=entry.comment or "",
            author=entry.author or "",
            empty_layer=bool(entry.empty_layer),
        )
        for entry in raw.history or ()
    )


def build_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """An OCI manifest; equal input gives equal bytes."""

    def describe(descriptor: Descriptor) -> dict[str, object]:
        document: dict[str, object] = {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        }
        return document | ({"urls": descriptor.urls} if descriptor.urls else {})

    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(config),
            "layers": [describe(layer) for layer in layers],
        }
    )


def is_unpacked(media_type: str) -> bool:
    """Whether a layer of this type is stored without compression."""
    return media_type in _UNPACKED_LAYERS
