"""A disk that fills up at any point of a load is NoSpace, leaves nothing, and the store goes on working."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.errors import NoSpace
from silo.images import ImageLimits
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import SmallImage, file, image_archive, layer_tar
from tests.support.probes import require_root

_MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[StoreOnDisk]:
    """A file system of 8 MiB and 300 inodes."""
    require_root()
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=300", "tmpfs", root], check=True)
    try:
        yield StoreOnDisk(root)
    finally:
        subprocess.run(["umount", root], check=True)


def archive_of(path: Path, size: int, files: int = 1) -> Path:
    layer = layer_tar([file(f"f{n}", os.urandom(size)) for n in range(files)])
    return image_archive(path, [SmallImage(tags=("big:1",), layers=(layer,))])


@pytest.mark.parametrize(
    ("size", "files"),
    [(20 * _MIB, 1), (5 * _MIB, 1), (10, 400)],
    ids=["while storing the blob", "while unpacking", "no inodes left"],
)
def test_a_disk_that_fills_up(small_disk: StoreOnDisk, tmp_path: Path, size: int, files: int) -> None:
    async def scenario() -> None:
        store = small_disk.open(ImageLimits(free_bytes=0))
        archive = archive_of(tmp_path / "big.tar", size, files)
        with pytest.raises(NoSpace, match="no space left on device") as caught:
            await store.load(chunks_of(archive), ProgressLog())
        assert caught.value.hint
        assert [path for path in small_disk.root.rglob("*") if path.is_file()] == [] and store.all() == ()
        small = image_archive(
            tmp_path / "small.tar", [SmallImage(tags=("s:1",), layers=(layer_tar([file("a", "b")]),))]
        )
        (image,) = await store.load(chunks_of(small), ProgressLog())
        assert (image.layer_paths[0] / "a").read_text() == "b"

    asyncio.run(scenario())


def test_the_reserve_is_left_free(small_disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(NoSpace, match="less than 64 MiB"):
            await small_disk.open().load(chunks_of(archive_of(tmp_path / "a.tar", 10)), ProgressLog())

    asyncio.run(scenario())
