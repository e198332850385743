"""What builds need of the store: steps that do not wait for the disk, an image of nothing, steps that are taken over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from silo.errors import InvalidRequest
from silo.images import LocalImageStore, syncing
from silo.model.image import HistoryEntry, Image, ImageConfig
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import SmallImage, file, image_archive, layer_tar

T = TypeVar("T")
LAYER = layer_tar([file("a", "1")])
MORE = layer_tar([file("b", "2")])


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def base_archive(tmp_path: Path) -> Path:
    return image_archive(tmp_path / "in.tar", [SmallImage(tags=("base:1",), layers=(LAYER,))])


def loaded(store: LocalImageStore, tmp_path: Path) -> Image:
    return run(store.load(chunks_of(base_archive(tmp_path)), ProgressLog()))[0]


async def commit(store: LocalImageStore, base: Image, text: str, *, layer: bytes | None = None) -> Image:
    return await store.commit(
        base,
        pieces(layer) if layer is not None else None,
        reference="",
        config=ImageConfig(env=(text,)),
        entry=HistoryEntry(created="2026-01-01T00:00:00Z", created_by=text),
    )


def step(store: LocalImageStore, base: Image, text: str, *, layer: bytes | None = None) -> Image:
    return run(commit(store, base, text, layer=layer))


def test_a_step_is_there_before_the_disk_has_it(
    disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a load is (silo.images.syncing): a daemon that is killed loses no step, a machine that goes down the last ones."""

    async def scenario() -> None:
        store = disk.open()
        (base,) = await store.load(chunks_of(base_archive(tmp_path)), ProgressLog())
        await store.finish_syncing()
        slow_disk = threading.Event()
        monkeypatch.setattr(syncing, "sync_file_system", lambda _: slow_disk.wait())
        one = await commit(store, base, "one", layer=MORE)
        store.tag(one.id, "named:1")
        assert [image.id for image in store.children(base.id)] == [one.id]
        rows = dict(disk.rows.items())
        assert rows[one.id].unsynced and not rows[base.id].unsynced
        slow_disk.set()
        assert disk.open().get("named:1").id == one.id
        await store.finish_syncing()
        assert not dict(disk.rows.items())[one.id].unsynced

    run(scenario())


def test_an_image_of_nothing(disk: StoreOnDisk) -> None:
    store = disk.open()
    empty = run(store.empty(""))
    assert run(store.empty("")).id == empty.id and empty.layers == () and empty.history == ()
    assert str(empty.platform).startswith("linux/")
    assert run(store.empty("windows/amd64:10.0.1")).platform.os_version == "10.0.1"
    made = step(store, empty, "COPY", layer=LAYER)
    assert len(made.layers) == 1 and (made.layer_paths[0] / "a").read_text() == "1"


def test_a_step_is_taken_over_from_another_image(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    base = loaded(store, tmp_path)
    named = step(store, base, "ENV x")
    source = step(store, named, "RUN make", layer=MORE)
    for entry in source.history:
        assert entry.created
    one = run(store.extend(base, source, config=named.config, entry=source.history[-2]))
    two = run(store.extend(one, source, config=source.config, entry=source.history[-1]))
    assert (one.layers, two.layers) == (base.layers, source.layers)
    assert two.id == source.id, "the same steps are the same image"
    assert one.parent == base.id


def test_names_are_checked_before_anything_is_built(disk: StoreOnDisk) -> None:
    store = disk.open()
    store.check_tag("registry.example:5000/a/b:1")
    for name in ("UPPER", "a:b:c", "a@sha256:" + "0" * 64, ""):
        with pytest.raises(InvalidRequest):
            store.check_tag(name)
