"""Write an archive that `docker load`, podman and skopeo (docker-archive: and oci-archive:) accept alike.

An OCI layout (oci-layout, index.json, blobs/sha256/…) with Docker's manifest.json beside it, as `docker save` writes since 25.
Blobs go out as they are stored, so whoever loads the archive finds the same digests. The plan is pure; streaming blocks.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence

import msgspec

from silo.errors import HostError
from silo.images.blobs import BlobStore
from silo.images.documents import OCI_INDEX
from silo.images.records import ImageRecord, ManifestRecord, SavedImage
from silo.images.references import parse_reference
from silo.images.workspace import Workspace

_BLOCK = 512
_RECORD = 20 * _BLOCK


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the archive: `data`, or the blob `digest` of `size` bytes."""

    name: str
    data: bytes = b""
    digest: str = ""
    size: int = 0


def choose_manifest(record: ImageRecord, workspace: Workspace) -> ManifestRecord:
    """One whose blobs are all here; what came from outside goes before what Silo wrote. Raises HostError."""
    for manifest in sorted(record.manifests, key=lambda manifest: manifest.made_here):
        if all(workspace.blob_size(layer.digest) is not None for layer in record.own_layers(manifest)):
            return manifest
    raise HostError(
        f"the packed layers of image {record.id[7:19]} are not complete", hint="load or pull the image again"
    )


def plan_archive(images: Sequence[tuple[SavedImage, ManifestRecord]]) -> list[Member]:
    """The members in order: the table of contents first, so that a reader of the stream knows what comes."""
    blobs: dict[str, int] = {}
    contents = []
    index = []
    for image, manifest in images:
        record = image.record
        blobs[manifest.digest] = manifest.size
        blobs[record.id] = record.config_size
        blobs.update((layer.digest, layer.size) for layer in record.own_layers(manifest))
        contents.append(
            {
                "Config": _blob_name(record.id),
                "RepoTags": [parse_reference(tag).familiar for tag in image.tags] or None,
                "Layers": [_blob_name(layer.digest) for layer in manifest.layers],
            }
        )
        index.extend(_index_entries(image, manifest))
    documents = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index},
        "manifest.json": contents,
    }
    members = [_document(name, content) for name, content in documents.items()]
    members += [Member(name=_blob_name(digest), digest=digest, size=size) for digest, size in sorted(blobs.items())]
    return members


def _document(name: str, content: object) -> Member:
    data = msgspec.json.encode(content)
    return Member(name=name, data=data, size=len(data))


def _index_entries(image: SavedImage, manifest: ManifestRecord) -> list[dict[str, object]]:
    platform = image.record.platform
    described = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        described["variant"] = platform.variant
    if platform.os_version:
        described["os.version"] = platform.os_version
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "platform": described,
    }
    if not image.tags:
        return [entry]
    return [
        entry
        | {
            "annotations": {
                "io.containerd.image.name": tag,
                "org.opencontainers.image.ref.name": parse_reference(tag).tag,
            }
        }
        for tag in image.tags
    ]


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def stream_archive(members: Sequence[Member], blobs: BlobStore) -> Iterator[bytes]:
    """The tar, reproducible: no times, no owners."""
    written = 0
    for member in members:
        header = tarfile.TarInfo(member.name)
        header.size = member.size
        head = header.tobuf(tarfile.PAX_FORMAT)
        yield head
        size = 0
        for piece in [member.data] if not member.digest else blobs.chunks(member.digest):
            size += len(piece)
            yield piece
        if size != member.size:
            raise HostError(
                f"the blob {member.digest} has {size} bytes instead of {member.size}", hint="load the image again"
            )
        padding = -size % _BLOCK
        yield bytes(padding)
        written += len(head) + size + padding
    end = 2 * _BLOCK
    yield bytes(end + -(written + end) % _RECORD)
