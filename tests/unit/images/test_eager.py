"""Layers that are unpacked while they arrive."""

from __future__ import annotations

import gzip
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.images.blobs import BlobStore
from silo.images.eager import EagerUnpacker
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.workspace import Operation, Workspace
from tests.support.images import file, layer_tar

SIZE = 3 << 20
LAYER = layer_tar([file("first", "1"), file("big", random.Random(1).randbytes(SIZE)), file("last", "2")])
PIECE = 64 << 10


class Receiver:
    """As archive_in uses it."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.operation: Operation = self.workspace.begin()
        self.limits = ImageLimits()
        self.blobs = BlobStore(self.workspace, self.limits)
        self.shown: list[str] = []
        layers = LayerStore(self.workspace, self.limits)
        self.eager = EagerUnpacker(self.operation, layers, lambda item, *_: self.shown.append(item))

    def receive(self, data: bytes, pieces: Iterator[memoryview] | None = None, name: str = "l/layer.tar") -> None:
        watched = self.eager.watch(pieces or pieces_of(data), name, len(data))
        self.eager.arrived(self.blobs.write_temporary(watched, self.operation.path()))

    def unpacked_file(self, name: str) -> Path | None:
        return next(self.workspace.staging.rglob(name), None)


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "data")


def pieces_of(data: bytes, size: int = PIECE) -> Iterator[memoryview]:
    for at in range(0, len(data), size):
        yield memoryview(data)[at : at + size]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_are_there_before_the_layer_has_come_whole(receiver: Receiver, pack: Callable[[bytes], bytes]) -> None:
    data = pack(LAYER)

    def slowly() -> Iterator[memoryview]:
        *pieces, last = pieces_of(data, len(data) // 40)
        yield from pieces
        wait_until(lambda: receiver.unpacked_file("first"))
        yield last

    with receiver.eager as eager:
        receiver.receive(data, slowly())
        eager.finish()
    (diff_id,) = eager.unpacked
    layer = receiver.workspace.layer_path(diff_id)
    assert (layer / "last").read_text() == "2" and (layer / "big").stat().st_size == SIZE


def test_a_layer_that_breaks_off_leaves_no_thread_and_no_layer(receiver: Receiver) -> None:
    def broken() -> Iterator[memoryview]:
        yield from list(pieces_of(LAYER))[:20]
        raise InvalidRequest("the archive is truncated")

    before = threading.active_count()
    with pytest.raises(InvalidRequest, match="truncated"), receiver.eager:
        receiver.receive(LAYER, broken())
    assert threading.active_count() == before and receiver.eager.unpacked == set()
    assert list(receiver.workspace.layers.iterdir()) == []


def test_a_bad_layer_holds_up_neither_the_receiver_nor_the_next_one(receiver: Receiver) -> None:
    bad = LAYER[:1024] + b"x" * (8 << 20)
    with receiver.eager as eager:
        receiver.receive(bad)
        receiver.receive(LAYER)
        eager.finish()
    assert len(eager.unpacked) == 1


def test_only_layers_of_linux_are_unpacked_ahead(receiver: Receiver) -> None:
    windows = layer_tar([file("Files/x", b"x" * SIZE)])
    with receiver.eager as eager:
        for data in (b"{}", b"", b"j" * SIZE, windows):
            receiver.receive(data)
        eager.finish()
    assert eager.unpacked == set() and not receiver.unpacked_file("x")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("0123456789abcdef/layer.tar", "0123456789ab"),
        ("blobs/sha256/fedcba9876543210", "fedcba987654"),
        ("\x1b[2J/layer.tar", "layer"),
    ],
)
def test_what_progress_calls_it(receiver: Receiver, name: str, shown: str) -> None:
    with receiver.eager as eager:
        receiver.receive(LAYER, name=name)
        eager.finish()
    assert set(receiver.shown) == {shown}
