"""The archives of `bench/run images` are what they say: the same each time, and images that Silo takes."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from bench.image_archives import MB, Archive, linux_archives, windows_archive
from bench.image_registry import BASE_KEYS, LAYERS, build_deltas, filled_up
from silo.windows.hives import Layering, read_hive
from silo.windows.registry import merge_registry
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archives(directory: Path) -> tuple[Archive, Archive]:
    directory.mkdir()
    return linux_archives(directory, (1, 1))


def test_linux_images_of_packed_and_of_plain_layers(tmp_path: Path) -> None:
    packed, plain = archives(tmp_path / "a")
    again, _ = archives(tmp_path / "b")
    assert digest(packed.path) == digest(again.path)
    assert 2 * MB <= packed.file_bytes < 3 * MB and packed.files > 40
    assert packed.path.stat().st_size < plain.path.stat().st_size * 0.8

    async def scenario() -> None:
        (tmp_path / "data").mkdir()
        store = StoreOnDisk(tmp_path / "data").open()
        (image,) = await store.load(chunks_of(packed.path), ProgressLog())
        (same,) = await store.load(chunks_of(plain.path), ProgressLog())
        assert image.layers == same.layers and image.tags == ("bench-packed:latest",)
        # a hard link counts once
        assert sum(
            path.is_file() and not path.is_symlink() for path in tmp_path.joinpath("data/layers").rglob("*")
        ) >= (packed.files)
        await store.finish_syncing()

    asyncio.run(scenario())


def test_a_windows_image_names_a_base_that_it_does_not_hold(tmp_path: Path) -> None:
    archive = windows_archive(tmp_path, (30, 20))
    assert archive.files == 50 and len(archive.layers) == 2
    raw = archive.path.read_bytes()
    assert b"Apply image 10.0.20348" in raw and b"rootfs.foreign.diff" in raw
    assert archive.without_base is not None and b"Apply image" not in archive.without_base.read_bytes()


def test_deltas_change_a_base_of_seventeen_thousand_keys() -> None:
    base = {"system.reg": filled_up(b"WINE REGISTRY Version 2\n;; All keys relative to \\\\Machine\n\n#arch=win64\n")}
    assert base["system.reg"].count(b"\n[") == BASE_KEYS
    deltas = [build_deltas(number) for number in range(LAYERS)]
    merged = merge_registry(base, deltas)
    text = merged["system.reg"].decode()
    assert "Vendor 2" in text and "Part 2" in text and "userdef.reg" in merged
    # each layer deletes a component of the one before
    software = read_hive(deltas[1]["Software_Delta"]).root
    (gone,) = [key for key in software.subkeys if key.name == "Vendor 0"]
    assert gone.subkeys[0].layering is Layering.TOMBSTONE
    assert "Vendor 0\\\\Component 0001]" not in text and "Vendor 0\\\\Component 0002]" in text
