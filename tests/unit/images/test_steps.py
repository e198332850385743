"""What builds need of the store: rows that are held back, an image of nothing, steps that are taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from silo.errors import InvalidRequest
from silo.images import LocalImageStore
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


def loaded(store: LocalImageStore, tmp_path: Path) -> Image:
    path = image_archive(tmp_path / "in.tar", [SmallImage(tags=("base:1",), layers=(LAYER,))])
    return run(store.load(chunks_of(path), ProgressLog()))[0]


def step(store: LocalImageStore, base: Image, text: str, *, layer: bytes | None = None, settled: bool = False) -> Image:
    return run(
        store.commit(
            base,
            pieces(layer) if layer is not None else None,
            reference="",
            config=ImageConfig(env=(text,)),
            entry=HistoryEntry(created="2026-01-01T00:00:00Z", created_by=text),
            settled=settled,
        )
    )


def test_rows_are_held_back_until_they_are_settled(
    disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    store = disk.open()
    base = loaded(store, tmp_path)
    monkeypatch.setattr("silo.images.store.sync_file_system", synced.append)
    one = step(store, base, "one")
    two = step(store, one, "two", layer=MORE)
    assert store.get(two.id).parent == one.id and [image.id for image in store.children(base.id)] == [one.id]
    assert set(disk.rows.rows) == {base.id} and not synced
    store.tag(two.id, "named:1")
    assert set(disk.rows.rows) == {base.id}, "a name does not make a row safer"
    run(store.settle())
    assert set(disk.rows.rows) == {base.id, one.id, two.id} and len(synced) == 1
    run(store.settle())
    assert len(synced) == 1, "nothing was left to settle"
    assert disk.open().get("named:1").id == two.id


def test_what_was_not_settled_is_gone_after_a_crash(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    one = step(store, loaded(store, tmp_path), "one", layer=MORE)
    again = disk.open()
    again.finish_deleting()
    assert again.find(one.id) is None and len(list((disk.root / "layers").iterdir())) == 1
    assert len(again.all()) == 1


def test_removing_what_was_not_settled(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    one = step(store, loaded(store, tmp_path), "one")
    store.remove(one.id, force=True, in_use={})
    run(store.settle())
    assert one.id not in disk.rows.rows and store.find(one.id) is None


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
