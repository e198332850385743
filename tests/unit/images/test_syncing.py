"""Loads that the disk follows: what a dead daemon, a loss of power and a broken disk leave of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from silo.errors import HostError
from silo.host.durable import boot_id
from silo.images import ImageRecord, LocalImageStore
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import SmallImage, file, image_archive, layer_tar

SYNC, BOOT = "silo.images.syncing.sync_file_system", "silo.images.syncing.boot_id"


def archive(tmp_path: Path, content: str, *tags: str) -> Path:
    image = SmallImage(tags=tags, layers=(layer_tar([file("content", content)]),))
    return image_archive(tmp_path / f"{content}.tar", [image])


async def load(store: LocalImageStore, path: Path, *, finished: bool = True) -> str:
    (image,) = await store.load(chunks_of(path), ProgressLog())
    if finished:
        await store.finish_syncing()
    return image.id


def load_unsynced(store: LocalImageStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As far as it gets with a disk that takes for ever."""
    goes_on = threading.Event()

    async def interrupted() -> str:
        image_id = await load(store, path, finished=False)
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
        return image_id

    with monkeypatch.context() as patched:
        patched.setattr(SYNC, lambda _root: goes_on.wait(30))
        return asyncio.run(interrupted())


def rows(disk: StoreOnDisk) -> dict[str, ImageRecord]:
    return dict(disk.rows.items())


def test_a_load_does_not_wait_for_the_disk(disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, may_sync = [], threading.Event()

    def sync(root: Path) -> None:
        assert may_sync.wait(30)
        synced.append(root)

    async def scenario() -> None:
        image_id = await load(store, archive(tmp_path, "a", "a:1"), finished=False)
        assert (store.get("a:1").layer_paths[0] / "content").read_text() == "a"
        assert rows(disk)[image_id].unsynced == boot_id() and synced == []
        may_sync.set()
        await store.finish_syncing()
        assert rows(disk)[image_id].unsynced == "" and synced == [disk.root]

    monkeypatch.setattr(SYNC, sync)
    store = disk.open()
    asyncio.run(scenario())


def test_a_daemon_that_died_before_the_disk_had_it(
    disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = load_unsynced(disk.open(), archive(tmp_path, "a", "a:1"), monkeypatch)
    assert rows(disk)[image_id].unsynced
    store = disk.open()
    assert store.get("a:1").id == image_id and rows(disk)[image_id].unsynced == ""


def test_after_a_loss_of_power_names_are_back_where_they_were(
    disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = asyncio.run(load(disk.open(), archive(tmp_path, "first", "x:1", "x:2")))
    store = disk.open()
    second = load_unsynced(store, archive(tmp_path, "second", "x:1"), monkeypatch)
    third = load_unsynced(store, archive(tmp_path, "third", "x:1", "y:1"), monkeypatch)
    assert store.get("x:1").id == third and store.get("x:2").id == first
    monkeypatch.setattr(BOOT, lambda: "another")
    store = disk.open()
    assert store.get("x:1").id == store.get("x:2").id == first
    assert [image.id for image in store.all()] == [first] and set(rows(disk)) == {first}
    assert second in caplog.text and "y:1" in caplog.text
    store.collect_garbage()
    store.finish_deleting()
    assert len(list((disk.root / "layers").iterdir())) == 1
    assert asyncio.run(load(store, tmp_path / "third.tar")) == third


def test_what_was_synced_outlives_any_boot(disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is loaded once more: an image that is safe is not put at risk."""
    path = archive(tmp_path, "a", "a:1")
    image_id = asyncio.run(load(disk.open(), path))
    load_unsynced(disk.open(), path, monkeypatch)
    monkeypatch.setattr(BOOT, lambda: "another")
    assert disk.open().get("a:1").id == image_id


def test_a_disk_that_cannot_be_written(
    disk: StoreOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_root: Path) -> None:
        raise HostError("cannot sync", details="Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(SYNC, fail)
        image_id = asyncio.run(load(disk.open(), archive(tmp_path, "a", "a:1")))
    assert "cannot be written to the disk" in caplog.text
    assert rows(disk)[image_id].unsynced == boot_id()
