"""Unpack the layers of an archive while they arrive.

Which members are layers is known at the archive's end; what looks like one is unpacked beside the receiving, under the same
limits, out of the bytes that are on their way to its staging file. It counts for nothing until the contents name it: a failure
here is forgotten and told when the layer is really asked for, and what nobody asks for is collected.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import re
import threading
from collections.abc import Iterable, Iterator

from silo.engine.ports import Progress
from silo.errors import InvalidRequest, SiloError
from silo.images.blobs import Blob
from silo.images.compression import Compression, detect_compression
from silo.images.layers import LayerStore, first_member
from silo.images.workspace import Operation
from silo.model.windows_layers import is_windows_layer

_HEX = re.compile("[0-9a-f]{12}")
_MAGIC = slice(257, 262)
_HEAD = 512
_FIRST_MEMBER = 64 << 10
_AHEAD = 8
_RETRY_S = 0.1


class EagerUnpacker:
    """One worker thread; a context manager that leaves no thread behind. Used by one thread."""

    def __init__(self, operation: Operation, layers: LayerStore, progress: Progress) -> None:
        self._operation = operation
        self._layers = layers
        self._progress = progress
        self._queue: queue.SimpleQueue[_Arriving | None] = queue.SimpleQueue()
        self._arriving: _Arriving | None = None
        self._thread = threading.Thread(target=self._work, name="unpack layers", daemon=True)
        self.unpacked: set[str] = set()
        """Diff ids, complete after `finish`."""

    def __enter__(self) -> EagerUnpacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._arriving is not None:
            self._arriving.abandon()
        self.finish()

    def watch(self, pieces: Iterable[memoryview], name: str, size: int) -> Iterator[memoryview]:
        """The pieces of a member of `size` bytes as they are; they go to the worker too if they look like a layer."""
        iterator = iter(pieces)
        held: list[memoryview] = []
        head = b""
        while len(head) < min(_HEAD, size):
            held.append(next(iterator))
            head += held[-1][: _HEAD - len(head)]
        arriving = None
        if _looks_like_layer(head):
            plain = detect_compression(head) is Compression.NONE
            arriving = self._arriving = _Arriving(_shown(name), size, plain=plain)
            self._queue.put(arriving)
        for piece in itertools.chain(held, iterator):
            if arriving is not None:
                arriving.put(bytes(piece))
            yield piece

    def arrived(self, blob: Blob) -> None:
        """The member that was watched last is complete."""
        if self._arriving is not None:
            self._arriving.end(blob.digest)
            self._arriving = None

    def finish(self) -> None:
        """Wait until everything that arrived is unpacked, or has failed."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (arriving := self._queue.get()) is not None:
            # whoever needs this layer unpacks it again and is told; a cancelled operation notices by itself
            with contextlib.suppress(SiloError, OSError), arriving:
                self._unpack(arriving)

    def _unpack(self, arriving: _Arriving) -> None:
        chunks = self._reported(arriving)
        begin = b""
        while len(begin) < min(_FIRST_MEMBER, arriving.size):
            begin += next(chunks)
        if is_windows_layer(first_member([begin])):
            # what lies below decides what such a layer looks like
            return
        diff_id, _ = self._layers.unpack_unknown(
            self._operation,
            itertools.chain((begin,), chunks),
            packed_bytes=arriving.size,
            digest=(lambda: arriving.digest) if arriving.plain else None,
        )
        self.unpacked.add(diff_id)

    def _reported(self, arriving: _Arriving) -> Iterator[bytes]:
        done = 0
        for chunk in arriving:
            done += len(chunk)
            yield chunk
            self._progress(arriving.name, "Loading layer", done, arriving.size)


class _Arriving:
    """A member on its way from the receiving thread to the worker, a few chunks ahead. As a context, it is the worker's."""

    def __init__(self, name: str, size: int, *, plain: bool) -> None:
        self.name = name
        self.size = size
        self.plain = plain
        self.digest = ""
        """Of its bytes, once all have arrived."""
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._unwanted = False
        self._broken = False

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._unwanted = True

    def put(self, chunk: bytes | None) -> None:
        """Waits as long as the worker is behind; does nothing once it wants no more."""
        while not self._unwanted:
            with contextlib.suppress(queue.Full):
                self._queue.put(chunk, timeout=_RETRY_S)
                return

    def end(self, digest: str) -> None:
        self.digest = digest
        self.put(None)

    def abandon(self) -> None:
        """The rest will not come."""
        self._broken = True
        self.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._queue.get()) is not None:
            yield chunk
        if self._broken:
            raise InvalidRequest("the archive ends within a layer")


def _shown(untrusted_name: str) -> str:
    """What progress calls it: the beginning of the digest or id in `blobs/sha256/<digest>` and `<id>/layer.tar`."""
    found = _HEX.search(untrusted_name)
    return found[0] if found else "layer"


def _looks_like_layer(head: bytes) -> bool:
    if head[_MAGIC] == b"ustar":
        return True
    with contextlib.suppress(SiloError):
        return detect_compression(head) is not Compression.NONE
    return False
