from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from silo.errors import HostError, NoSpace
from silo.isolation.vm import image_files
from silo.isolation.vm.command import IMAGE_BYTES, MAPPED_BYTES
from silo.isolation.vm.image_files import ImageFiles

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="erofs-utils is not installed")


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    made = tmp_path / "layer"
    made.mkdir()
    (made / "file").write_bytes(b"content" * 1000)
    return made


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    made = ImageFiles(tmp_path / "images")
    made.open()
    return made


def test_one_layer_for_either_slot(files: ImageFiles, layer: Path) -> None:
    async def body() -> None:
        assert await files.find([layer]) is None
        disk = await files.ensure([layer], map_it=False)
        assert not disk.mapped and disk.path.stat().st_size == IMAGE_BYTES
        mapped = await files.ensure([layer], map_it=True)
        assert mapped.mapped and mapped.path.stat().st_size == MAPPED_BYTES
        assert mapped.path.stat().st_mode & 0o777 == 0o444
        assert await files.ensure([layer], map_it=True) == mapped == await files.find([layer])

    asyncio.run(body())


def test_two_who_want_the_same_wait_for_one(files: ImageFiles, layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    run = image_files.run

    def counted(*words: object, **options: object) -> object:
        runs.append(words)
        return run(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(image_files, "run", counted)

    async def body() -> None:
        both = await asyncio.gather(*(files.ensure([layer], map_it=True) for _ in range(5)))
        assert len({file.path for file in both}) == 1

    asyncio.run(body())
    assert len(runs) == 1


def test_files_of_layers_that_are_gone_and_half_made_ones_go(files: ImageFiles, layer: Path, tmp_path: Path) -> None:
    made = asyncio.run(files.ensure([layer], map_it=True)).path
    (tmp_path / "images" / "half.new").write_bytes(b"x")
    files.open()
    assert made.exists() and not (tmp_path / "images" / "half.new").exists()
    shutil.rmtree(layer)
    files.open()
    assert not made.exists()


@pytest.mark.parametrize(("reason", "error"), [("No space left on device", NoSpace), ("broken", HostError)])
def test_a_failure_leaves_nothing(
    files: ImageFiles, layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, error: type[Exception]
) -> None:
    from silo.errors import CommandFailed

    def fail(words: list[Path], **_: object) -> None:
        words[3].write_bytes(b"half")
        raise CommandFailed(tuple(map(str, words)), 1, reason)

    monkeypatch.setattr(image_files, "run", fail)
    with pytest.raises(error):
        asyncio.run(files.ensure([layer], map_it=True))
    assert list((tmp_path / "images").glob("*")) == []
