"""Content by digest: receive, verify, read. Blocks; called from threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from silo.errors import HostError, InvalidRequest
from silo.host.durable import free_bytes, host_error
from silo.images.limits import ImageLimits
from silo.images.workspace import Operation, Workspace

_CHUNK = 1 << 20
_ROOM_CHECK = 64 << 20


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    size: int


class BlobStore:
    """The content store over a workspace."""

    def __init__(self, workspace: Workspace, limits: ImageLimits) -> None:
        self._workspace = workspace
        self._limits = limits

    def write_temporary(self, pieces: Iterable[bytes | memoryview], path: Path) -> Blob:
        """Write to a staging path, digesting on the way. Raises NoSpace."""
        digest = hashlib.sha256()
        size = 0
        next_check = 0
        try:
            with path.open("xb", buffering=_CHUNK) as file:
                for piece in pieces:
                    if size >= next_check:
                        check_room(path.parent, self._limits.free_bytes)
                        next_check = size + _ROOM_CHECK
                    digest.update(piece)
                    file.write(piece)
                    size += len(piece)
        except OSError as error:
            raise host_error(error, "cannot store a blob") from error
        return Blob(digest=f"sha256:{digest.hexdigest()}", size=size)

    def receive(
        self, operation: Operation, pieces: Iterable[bytes | memoryview], *, expected: str = "", what: str = "blob"
    ) -> Blob:
        """Store the bytes; with `expected`, other bytes than these are InvalidRequest."""
        path = operation.path()
        blob = self.write_temporary(pieces, path)
        if expected and blob.digest != expected:
            path.unlink()
            raise InvalidRequest(f"the {what} is damaged: its digest is {blob.digest}, not {expected}")
        self.place(operation, path, blob)
        return blob

    def place(self, operation: Operation, path: Path, blob: Blob) -> None:
        """A finished staging file becomes the blob, unless the store holds it already."""
        operation.pin(blob.digest)
        if self._workspace.blob_size(blob.digest) is None:
            path.chmod(0o600)
            self._workspace.put_blob(path, blob.digest, blob.size)
        else:
            path.unlink()

    def adopt(self, operation: Operation, source: Path, digest: str, *, what: str) -> Blob:
        """Take a file of another directory: hard-linked on the same file system, else copied; verified by its digest."""
        operation.pin(digest)
        size = self._workspace.blob_size(digest)
        if size is not None:
            return Blob(digest=digest, size=size)
        try:
            link = operation.path()
            try:
                os.link(source, link)
            except OSError:
                with source.open("rb") as file:
                    return self.receive(operation, file_chunks(file.fileno()), expected=digest, what=what)
            with link.open("rb") as file:
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise InvalidRequest(f"the {what} {digest} is missing") from error
        except OSError as error:
            raise host_error(error, f"cannot read the {what} {digest}") from error
        if found != digest:
            raise InvalidRequest(f"the {what} is damaged: its digest is {found}, not {digest}")
        blob = Blob(digest=digest, size=size)
        self.place(operation, link, blob)
        return blob

    def read(self, digest: str) -> bytes:
        """A manifest or config, whole. Raises InvalidRequest when it is too long for one, HostError when it is gone."""
        limit = self._limits.document_bytes
        try:
            with self._workspace.blob_path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise HostError(
                f"the blob {digest} cannot be read", details=str(error), hint="load or pull the image again"
            ) from error
        if len(data) > limit:
            raise InvalidRequest(f"the document {digest} is longer than {limit} bytes")
        return data

    def chunks(self, digest: str) -> Iterator[bytes]:
        """The blob in pieces of 1 MiB."""
        try:
            with self._workspace.blob_path(digest).open("rb", buffering=0) as file:
                yield from file_chunks(file.fileno())
        except OSError as error:
            raise HostError(
                f"the blob {digest} cannot be read", details=str(error), hint="load or pull the image again"
            ) from error


def file_chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk


def check_room(directory: Path, reserve: int) -> None:
    """Raises NoSpace when less than the reserve is free."""
    if free_bytes(directory) < reserve:
        raise host_error(OSError(28, "No space left on device"), f"less than {reserve >> 20} MiB would be left free")
