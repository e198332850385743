"""Unpacked layers by diff id: made once, whole or not at all, from a packed layer of the content store. Blocks."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from silo.engine.ports import UnpackedLayer, WindowsLayers
from silo.errors import HostError, InvalidRequest, NoSpace, SiloError, Unsupported
from silo.host.beneath import Root
from silo.host.durable import host_error
from silo.images.blobs import check_room
from silo.images.compression import decompress
from silo.images.limits import ImageLimits
from silo.images.records import LayerRecord
from silo.images.unpack import LayerUnpacker
from silo.images.workspace import Operation, Workspace, delete
from silo.model.tarstream import ByteStream, TarReader
from silo.model.windows_layers import is_windows_layer

_LOG = logging.getLogger(__name__)
_ROOM_CHECK = 64 << 20
_QUEUE_CHUNKS = 8
_Item = bytes | BaseException | None


class LayerStore:
    """The unpacked layers over a workspace."""

    def __init__(self, workspace: Workspace, limits: ImageLimits, windows: WindowsLayers | None = None) -> None:
        """`windows`: who reads and writes layers of Windows' format."""
        self._workspace = workspace
        self._limits = limits
        self._windows = windows

    def ensure(
        self,
        operation: Operation,
        diff_id: str,
        chunks: Callable[[], Iterable[bytes]],
        *,
        packed_bytes: int,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> LayerRecord:
        """Unpack the layer unless it is there.

        `chunks` gives the packed layer; its content must have `diff_id`. `on_progress` hears packed bytes read so far.
        """
        record = LayerRecord(diff_id=diff_id, size_bytes=0)
        return self._ensure(operation, record, chunks, packed_bytes, on_progress, below=None)

    def ensure_windows(
        self,
        operation: Operation,
        diff_id: str,
        below: Sequence[LayerRecord],
        chunks: Callable[[], Iterable[bytes]],
        *,
        packed_bytes: int,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> LayerRecord:
        """The same for a layer of a Windows image, on the directories of `below` (lowest first): their spelling and registry
        decide what it looks like, so it has a directory for each such stack."""
        if not is_windows_layer(first_member(chunks())):
            return self.ensure(operation, diff_id, chunks, packed_bytes=packed_bytes, on_progress=on_progress)
        record = LayerRecord(diff_id=diff_id, size_bytes=0, key=chain_key(below, diff_id))
        return self._ensure(operation, record, chunks, packed_bytes, on_progress, below=self.paths(below))

    def paths(self, layers: Sequence[LayerRecord]) -> tuple[Path, ...]:
        """Their directories, topmost first."""
        return tuple(self._workspace.layer_path(layer.place) for layer in reversed(layers))

    def convert(self, chunks: Iterator[bytes], below: Sequence[LayerRecord]) -> Iterator[bytes]:
        """What a Windows container changed (an ordinary layer) as a layer of Windows' format. Raises InvalidRequest."""
        return self._format().convert(chunks, self.paths(below))

    def _format(self) -> WindowsLayers:
        if self._windows is None:
            raise Unsupported("layers of Windows images are not supported by this store")
        return self._windows

    def _ensure(
        self,
        operation: Operation,
        record: LayerRecord,
        chunks: Callable[[], Iterable[bytes]],
        packed_bytes: int,
        on_progress: Callable[[int], None],
        *,
        below: Sequence[Path] | None,
    ) -> LayerRecord:
        diff_id = record.diff_id
        operation.pin(record.place)
        with self._workspace.exclusively(record.place):
            size = self._workspace.layer_size(record.place)
            if size is None:
                target = operation.path()
                try:
                    result, found = self._unpack(target, chunks(), packed_bytes, on_progress, below)
                except SiloError as error:
                    delete(target)
                    raise _named(error, diff_id) from error
                if found != diff_id:
                    delete(target)
                    raise InvalidRequest(f"layer {diff_id} is damaged: its content has the digest {found}")
                size = result.file_bytes
                self._workspace.put_layer(target, record.place, size)
            return msgspec.structs.replace(record, size_bytes=size)

    def unpack_unknown(
        self,
        operation: Operation,
        chunks: Iterable[bytes],
        *,
        packed_bytes: int,
        digest: Callable[[], str] | None = None,
    ) -> tuple[str, int]:
        """Unpack a layer whose diff id is not told; answers (diff id, bytes of its files).

        `digest`: that of the content, asked after the last chunk, where the caller knows it because nothing is packed.
        """
        target = operation.path()
        try:
            result, diff_id = self._unpack(target, chunks, packed_bytes, lambda _: None, None, digest=digest)
        except SiloError:
            delete(target)
            raise
        operation.pin(diff_id)
        with self._workspace.exclusively(diff_id):
            size = self._workspace.layer_size(diff_id)
            if size is None:
                self._workspace.put_layer(target, diff_id, result.file_bytes)
                return diff_id, result.file_bytes
        delete(target)
        return diff_id, size

    def _unpack(
        self,
        target: Path,
        chunks: Iterable[bytes],
        packed_bytes: int,
        on_progress: Callable[[int], None],
        below: Sequence[Path] | None,
        *,
        digest: Callable[[], str] | None = None,
    ) -> tuple[UnpackedLayer, str]:
        try:
            target.mkdir(mode=0o755)
            target.chmod(0o755)
        except OSError as error:
            raise host_error(error, f"cannot make {target}") from error
        found = hashlib.sha256()
        update = (lambda _: None) if digest else found.update
        checker = _Checker(self._limits, packed_bytes, target)
        with _Ahead(_digested(decompress(_counted(chunks, on_progress)), update, checker.count)) as ahead:
            plain = iter(ahead)
            result: UnpackedLayer
            if below is None:
                with Root(target) as root:
                    result = LayerUnpacker(root, check=checker.check).unpack(TarReader(ByteStream(plain)))
            else:
                result = self._format().unpack(target, plain, below, check=checker.check)
            # a digest wants every byte
            for _ in plain:
                pass
        for warning in result.warnings:
            _LOG.warning("layer in %s: %s", target.parent.name, warning)
        return result, digest() if digest else f"sha256:{found.hexdigest()}"


def chain_key(below: Sequence[LayerRecord], diff_id: str) -> str:
    """The name of the directory of a Windows layer on others."""
    chain = "\n".join((*(layer.place for layer in below), diff_id))
    return f"sha256:{hashlib.sha256(chain.encode()).hexdigest()}"


def first_member(chunks: Iterable[bytes]) -> str:
    """The name of a packed layer's first member; empty where there is none. Raises InvalidRequest."""
    unpacked = decompress(chunks)
    try:
        entry = TarReader(ByteStream(unpacked)).next()
    finally:
        for generator in (unpacked, chunks):
            if isinstance(generator, Generator):
                generator.close()
    return entry.name if entry else ""


class _Checker:
    """The limits of one layer."""

    def __init__(self, limits: ImageLimits, packed_bytes: int, target: Path) -> None:
        self._limits = limits
        self._packed = max(packed_bytes, 1)
        self._target = target
        self._next_room_check = 0

    def count(self, unpacked: int) -> None:
        """Called with the bytes that came out of decompression so far."""
        limits = self._limits
        if unpacked > 2 * limits.layer_bytes:  # headers and padding count here, data alone in `check`
            raise InvalidRequest(f"it unpacks to more than {limits.layer_bytes >> 20} MiB")
        if unpacked > limits.ratio_floor_bytes and unpacked > self._packed * limits.compression_ratio:
            raise InvalidRequest(
                f"it unpacks to more than {limits.compression_ratio} times its size",
                hint="that is how a decompression bomb looks",
            )

    def check(self, so_far: UnpackedLayer) -> None:
        limits = self._limits
        if so_far.entries > limits.layer_entries:
            raise InvalidRequest(f"it holds more than {limits.layer_entries} entries")
        if so_far.file_bytes > limits.layer_bytes:
            raise InvalidRequest(f"it unpacks to more than {limits.layer_bytes >> 20} MiB")
        if so_far.file_bytes >= self._next_room_check:
            check_room(self._target, limits.free_bytes + min(so_far.file_bytes - self._next_room_check, _ROOM_CHECK))
            self._next_room_check = so_far.file_bytes + _ROOM_CHECK


class _Ahead:
    """Runs an iterator of bytes in a thread of its own, a few chunks ahead: decompression beside the making of files."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[_Item] = queue.Queue(_QUEUE_CHUNKS)
        self._stopped = False
        self._thread = threading.Thread(target=self._produce, name="decompress", daemon=True)

    def __enter__(self) -> _Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()
        self._chunks.close()

    def _produce(self) -> None:
        try:
            for chunk in self._chunks:
                self._queue.put(chunk)
                if self._stopped:
                    return
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item


def _counted(chunks: Iterable[bytes], on_progress: Callable[[int], None]) -> Iterator[bytes]:
    total = 0
    try:
        for chunk in chunks:
            total += len(chunk)
            yield chunk
            on_progress(total)
    finally:
        # an error keeps frames alive for a while, and with them the file that the chunks come from
        if isinstance(chunks, Generator):
            chunks.close()


def _digested(
    chunks: Iterator[bytes], update: Callable[[bytes], None], count: Callable[[int], None]
) -> Generator[bytes, None, None]:
    total = 0
    for chunk in chunks:
        update(chunk)
        total += len(chunk)
        count(total)
        yield chunk


def _named(error: SiloError, diff_id: str) -> SiloError:
    """The same error, saying which layer."""
    for kind in (InvalidRequest, NoSpace, HostError, Unsupported):
        if isinstance(error, kind):
            return kind(f"layer {diff_id[:19]}: {error.brief}", details=error.details, hint=error.hint)
    return error
