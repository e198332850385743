"""Read an archive of images as it streams by: `docker save` (old and new), `podman save`, skopeo's docker-archive and oci-archive.

Members come in any order and the table of contents may come last, so each member is written once to a staging file, digested
on the way, and becomes a blob without another copy when the contents name it. Names in the archive are only compared, never
used as paths of the host. Blocks.

Formats: moby `image/spec/v1.2.md` (manifest.json); opencontainers/image-spec `image-layout.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from silo.engine.ports import Progress
from silo.errors import InvalidRequest
from silo.images.blobs import Blob, BlobStore
from silo.images.compression import decompress
from silo.images.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    ArchiveItem,
    Descriptor,
    decode,
    document_type,
    parse_index,
    parse_manifest,
)
from silo.images.eager import EagerUnpacker
from silo.images.intake import Intake, describe_packed
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.records import ImageRecord
from silo.images.references import parse_tag_target
from silo.images.unpack import clean_name
from silo.images.workspace import Operation
from silo.model import tarstream
from silo.model.tarstream import ByteStream, TarReader

_CONTENTS = "manifest.json"
_INDEX = "index.json"
_BLOBS = "blobs/sha256/"
_CONTAINERD_NAME = "io.containerd.image.name"
_REFERENCE_NAME = "org.opencontainers.image.ref.name"
_ATTESTATION = "vnd.docker.reference.type"
_MAX_INDEX_DEPTH = 3
_MAX_LINKS = 16
_HEAD = 512


@dataclass
class _Member:
    path: Path
    blob: Blob
    placed: bool = False


@dataclass
class _Found:
    """One image of the archive: its manifest's bytes if it has one, and the names given to it."""

    config: Blob
    layers: list[Blob]
    manifest: bytes = b""
    media_type: str = ""
    tags: list[str] = field(default_factory=list)


class ArchiveReader:
    """One archive, read once."""

    def __init__(
        self, operation: Operation, blobs: BlobStore, layers: LayerStore, intake: Intake, limits: ImageLimits
    ) -> None:
        self._operation = operation
        self._blobs = blobs
        self._layers = layers
        self._intake = intake
        self._limits = limits
        self._members: dict[str, _Member] = {}
        self._links: dict[str, str] = {}
        self.unused: set[str] = set()
        """Diff ids of what was unpacked and then not named by the archive's contents."""

    def load(self, chunks: Iterable[bytes], progress: Progress, *, base_layers: int | None = None) -> list[ImageRecord]:
        """All images of the archive, unpacked. Raises InvalidRequest, Unsupported, NoSpace, HostError."""
        with EagerUnpacker(self._operation, self._layers, progress) as eager:
            self._spool(chunks, eager)
            eager.finish()
        records: list[tuple[ImageRecord, tuple[str, ...]]] = []
        for found in self._images():
            record = self._take(found, progress, base_layers)
            tags = tuple(dict.fromkeys(parse_tag_target(tag).canonical for tag in found.tags))
            records.append((record, tags))
        used = {layer.diff_id for record, _ in records for layer in record.layers}
        self.unused = eager.unpacked - used
        return [_with_tags(record, tags) for record, tags in records]

    def _take(self, found: _Found, progress: Progress, base_layers: int | None) -> ImageRecord:
        self._place(found.config)
        if found.manifest:
            manifest = self._intake.store_manifest(self._operation, found.manifest, found.media_type)
        else:
            layers = [describe_packed(layer, self._head(layer)) for layer in found.layers]
            manifest = self._intake.wrap(self._operation, found.config, layers)
        config = self._blobs.read(found.config.digest)
        base = self._intake.find_base(
            self._operation, manifest, config, progress, told=base_layers, any_build=base_layers is not None
        )
        for layer in found.layers[len(base.diff_ids) if base else 0 :]:
            if not self._holds(layer):
                raise InvalidRequest(
                    f"the archive lacks the layer {layer.digest}, which it names",
                    hint="save the image again where all of it is" if base is None else "",
                )
            self._place(layer)
        return self._intake.assemble(
            self._operation, manifest, found.config.digest, progress, status="Loading layer", base=base
        )

    def _spool(self, chunks: Iterable[bytes], eager: EagerUnpacker) -> None:
        stream = ByteStream(decompress(chunks))
        reader = TarReader(stream)
        total = count = 0
        while (entry := reader.next()) is not None:
            count += 1
            total += entry.size
            if count > self._limits.archive_entries or total > self._limits.archive_bytes:
                raise InvalidRequest(
                    f"the archive is too large: more than {self._limits.archive_entries} entries "
                    f"or {self._limits.archive_bytes >> 30} GiB"
                )
            name = clean_name(entry.name)
            if entry.kind == tarstream.FILE:
                path = self._operation.path()
                blob = self._blobs.write_temporary(eager.watch(reader.data(), entry.name, entry.size), path)
                eager.arrived(blob)
                self._forget(name)
                self._members[name] = _Member(path, blob)
            elif entry.kind == tarstream.SYMBOLIC_LINK:
                self._forget(name)
                base = name.rpartition("/")[0]
                self._links[name] = clean_name(f"{base}/{entry.link}" if base else entry.link)
            elif entry.kind == tarstream.HARD_LINK:
                self._forget(name)
                self._links[name] = clean_name(entry.link)
            elif entry.kind != tarstream.DIRECTORY:
                raise InvalidRequest(
                    f"the archive holds {entry.name!r} of the type {entry.kind!r}, which is no part of an image"
                )
        stream.drain()

    def _forget(self, name: str) -> None:
        member = self._members.pop(name, None)
        self._links.pop(name, None)
        if member is not None:
            member.path.unlink()

    def _find(self, untrusted_name: str) -> _Member | None:
        name = clean_name(untrusted_name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is not None:
                return member
            if name not in self._links:
                return None
            name = self._links[name]
        return None

    def _get(self, untrusted_name: str, what: str) -> _Member:
        member = self._find(untrusted_name)
        if member is None:
            raise InvalidRequest(f"the archive lacks {untrusted_name!r}, which it names as {what}")
        return member

    def _document(self, member: _Member) -> bytes:
        if member.blob.size > self._limits.document_bytes:
            raise InvalidRequest(f"the archive holds a document of {member.blob.size} bytes")
        if member.placed:
            return self._blobs.read(member.blob.digest)
        return member.path.read_bytes()

    def _holds(self, blob: Blob) -> bool:
        return any(member.blob.digest == blob.digest for member in self._members.values())

    def _head(self, blob: Blob) -> bytes:
        """The first bytes of a member."""
        member = next(member for member in self._members.values() if member.blob.digest == blob.digest)
        if member.placed:
            return next(self._blobs.chunks(blob.digest), b"")
        with member.path.open("rb") as file:
            return file.read(_HEAD)

    def _place(self, blob: Blob) -> None:
        for member in self._members.values():
            if member.blob.digest == blob.digest and not member.placed:
                self._blobs.place(self._operation, member.path, member.blob)
                member.placed = True

    def _images(self) -> list[_Found]:
        contents, index = self._find(_CONTENTS), self._find(_INDEX)
        if contents is None and index is None:
            raise InvalidRequest(
                "the archive holds no images: neither manifest.json nor index.json is in it",
                hint="a root file system is brought in by `import`",
            )
        found: dict[str, _Found] = {}
        if index is not None and self._find("oci-layout") is not None:
            for descriptor in parse_index(self._document(index)).manifests:
                self._from_descriptor(descriptor, (), 0, found)
        if contents is not None:
            for item in decode(self._document(contents), list[ArchiveItem], "manifest.json of the archive"):
                self._from_item(item, found)
        if not found:
            raise InvalidRequest("the archive's table of contents names no image that is in it")
        if len(found) > self._limits.images_per_archive:
            raise InvalidRequest(
                f"the archive holds {len(found)} images", details=f"at most {self._limits.images_per_archive}"
            )
        return list(found.values())

    def _from_item(self, item: ArchiveItem, found: dict[str, _Found]) -> None:
        config = self._get(item.config, "an image's config").blob
        tags = item.repo_tags or []
        known = next((image for image in found.values() if image.config.digest == config.digest), None)
        if known is not None:
            known.tags.extend(tags)
            return
        layers = [self._get(name, "a layer").blob for name in item.layers or []]
        found[config.digest] = _Found(config, layers, tags=list(tags))

    def _from_descriptor(
        self, descriptor: Descriptor, names: tuple[str, ...], depth: int, found: dict[str, _Found]
    ) -> None:
        if (descriptor.annotations or {}).get(_ATTESTATION):
            return
        names += _names_of(descriptor)
        member = self._find(_BLOBS + descriptor.digest.removeprefix("sha256:"))
        if member is None:  # the index of an image of which only some platforms were saved
            return
        if member.blob.digest != descriptor.digest:
            raise InvalidRequest(f"the archive is damaged: {descriptor.digest} has the digest {member.blob.digest}")
        raw = self._document(member)
        media_type = document_type(raw, descriptor.media_type)
        if media_type in INDEX_TYPES and depth < _MAX_INDEX_DEPTH:
            for below in parse_index(raw).manifests:
                self._from_descriptor(below, names, depth + 1, found)
        elif media_type in MANIFEST_TYPES:
            self._from_manifest(raw, media_type, names, found)

    def _from_manifest(self, raw: bytes, media_type: str, names: tuple[str, ...], found: dict[str, _Found]) -> None:
        manifest = parse_manifest(raw)
        config = self._verified(manifest.config, "an image's config")
        layers = [self._layer(layer) for layer in manifest.layers]
        image = found.setdefault(config.digest, _Found(config, layers, raw, media_type))
        image.tags.extend(names)

    def _layer(self, descriptor: Descriptor) -> Blob:
        """One that is not in the archive may belong to Windows' base; whether it does is seen later."""
        if self._find(_BLOBS + descriptor.digest.removeprefix("sha256:")) is None:
            return Blob(digest=descriptor.digest, size=descriptor.size)
        return self._verified(descriptor, "a layer")

    def _verified(self, descriptor: Descriptor, what: str) -> Blob:
        blob = self._get(_BLOBS + descriptor.digest.removeprefix("sha256:"), what).blob
        if blob.digest != descriptor.digest:
            raise InvalidRequest(f"the archive is damaged: {what} {descriptor.digest} has the digest {blob.digest}")
        return blob


def _names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """Full names only: Docker writes a mere tag beside the name that manifest.json tells."""
    annotations = descriptor.annotations or {}
    full = annotations.get(_CONTAINERD_NAME, "")
    if full:
        return (full.partition("@")[0],)
    name = annotations.get(_REFERENCE_NAME, "")
    return (name.partition("@")[0],) if ":" in name or "/" in name else ()


def _with_tags(record: ImageRecord, tags: tuple[str, ...]) -> ImageRecord:
    return msgspec.structs.replace(record, tags=tags)
