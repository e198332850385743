"""Mutated archives: whatever comes in, the answer is images or an error of Silo's, and nothing lies outside or is left behind."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from silo.errors import SiloError
from silo.images import ImageLimits
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import (
    SmallImage,
    directory,
    file,
    hardlink,
    image_archive,
    layer_tar,
    symlink,
    whiteout,
)

ROUNDS = int(os.environ.get("SILO_FUZZ_ROUNDS", "40"))


def mutate(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data))
        kind = chance.randrange(5)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + chance.randrange(600)] = chance.randbytes(chance.randrange(600))
        elif kind == 2:
            del data[at : at + chance.randrange(1200)]
        elif kind == 3:
            block = at - at % 512
            data[block:block] = data[block : block + 512 * chance.randrange(4)]
        else:
            word = chance.choice(
                [b"../../../outside/x", b"sha256:", b'"Layers"', b"null", b"/" * 90, b"\xff" * 12, b"[" * 50]
            )
            data[at : at + len(word)] = word
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_archives(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    layers = (
        layer_tar([directory("d"), file("d/f", "x" * 700), symlink("l", "d"), hardlink("h", "d/f")]),
        layer_tar([whiteout("d/f"), file("l/g", "y")]),
    )
    images = [SmallImage(tags=("a:1", "b:1"), layers=layers, config={"Env": ["A=1"]}), SmallImage(layers=layers[:1])]
    original = image_archive(tmp_path / "in.tar", images).read_bytes()
    outside = tmp_path / "outside"
    outside.mkdir()
    disk = StoreOnDisk(tmp_path / "data")

    async def scenario() -> int:
        failures = 0
        store = disk.open(ImageLimits(layer_bytes=64 << 20, archive_bytes=64 << 20))
        for _ in range(ROUNDS):
            (tmp_path / "mutated.tar").write_bytes(mutate(bytearray(original), chance))
            try:
                await store.load(chunks_of(tmp_path / "mutated.tar"), ProgressLog())
            except SiloError:
                failures += 1
            store.finish_deleting()
            assert list((disk.root / "staging").iterdir()) == []
            for image in store.all():
                assert all(path.is_dir() for path in image.layer_paths)
        return failures

    failures = asyncio.run(scenario())
    assert 0 < failures <= ROUNDS
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in.tar", "mutated.tar", "outside"]
