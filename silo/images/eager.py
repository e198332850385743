"""Unpack layers of an archive while the rest of it still arrives.

Which members are layers is known at the archive's end; what looks like one is unpacked beside the receiving, under the same
limits. It counts for nothing until the contents name it: a failure here is forgotten and told when the layer is really
asked for, and what nobody asks for is collected.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from silo.engine.ports import Progress
from silo.errors import SiloError
from silo.images.blobs import Blob, file_chunks
from silo.images.compression import Compression, detect_compression
from silo.images.layers import LayerStore, first_member, is_windows_layer
from silo.images.workspace import Operation

_MAGIC = slice(257, 262)
_HEAD = 512


class EagerUnpacker:
    """One worker thread; a context manager that leaves no thread behind."""

    def __init__(self, operation: Operation, layers: LayerStore, progress: Progress) -> None:
        self._operation = operation
        self._layers = layers
        self._progress = progress
        self._queue: queue.SimpleQueue[tuple[Path, Blob] | None] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="unpack layers", daemon=True)
        self.unpacked: set[str] = set()
        """Diff ids, complete after `finish`."""

    def __enter__(self) -> EagerUnpacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self.finish()

    def submit(self, path: Path, blob: Blob) -> None:
        """A complete member of the archive; ignored unless it looks like a layer."""
        with path.open("rb") as file:
            if _looks_like_layer(file.read(_HEAD)):
                self._queue.put((path, blob))

    def finish(self) -> None:
        """Wait until everything submitted is unpacked, or has failed."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            path, blob = item
            # whoever needs this layer unpacks it again and is told; a cancelled operation notices by itself
            with contextlib.suppress(SiloError, OSError):
                if is_windows_layer(first_member(self._chunks(path, blob))):
                    # what lies below decides what such a layer looks like
                    continue
                with path.open("rb") as file:
                    plain = detect_compression(file.read(_HEAD)) is Compression.NONE
                diff_id, _ = self._layers.unpack_unknown(
                    self._operation,
                    self._chunks(path, blob),
                    packed_bytes=blob.size,
                    digest=blob.digest if plain else "",
                )
                self.unpacked.add(diff_id)

    def _chunks(self, path: Path, blob: Blob) -> Iterator[bytes]:
        done = 0
        with path.open("rb", buffering=0) as file:
            for chunk in file_chunks(file.fileno()):
                if self._stopped:
                    return
                done += len(chunk)
                yield chunk
                self._progress(blob.digest[7:19], "Loading layer", done, blob.size)


def _looks_like_layer(head: bytes) -> bool:
    if head[_MAGIC] == b"ustar":
        return True
    with contextlib.suppress(SiloError):
        return detect_compression(head) is not Compression.NONE
    return False
