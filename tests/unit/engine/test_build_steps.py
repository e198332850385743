"""What the engine does for steps of builds: containers of theirs, images of theirs, and what a dead daemon left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from silo.engine.building.running import BUILD_LABEL
from silo.errors import Unsupported
from silo.model.container import ContainerConfig
from silo.model.image import Image, ImageConfig
from silo.model.platform import Isolation
from tests.unit.engine.fakes import Bench


def scenario(body: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def whole() -> None:
        bench = Bench(**options)
        await bench.engine.open()
        await body(bench)

    asyncio.run(whole())


@pytest.mark.parametrize(("isolation", "volatile"), [(Isolation.PROCESS, True), (Isolation.HYPERV, False)])
def test_a_step_mounts_no_volumes_and_is_not_synced(
    isolation: Isolation, volatile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the disk of a machine has to be whole when it is read after its end."""
    asked: list[bool] = []

    async def body(bench: Bench) -> None:
        known = bench.storage.rootfs

        def rootfs(*words: Any, **options: Any) -> Any:
            asked.append(options["volatile"])
            return known(*words, **options)

        monkeypatch.setattr(bench.storage, "rootfs", rootfs)
        for build_step in (True, False):
            config = ContainerConfig(image="bb", build_step=build_step, isolation=isolation)
            created = await bench.engine.containers.create(config)
            assert bool(bench.engine.containers.resolve(created.id).mounts) is not build_step
            await bench.engine.containers.start(created.id)

    scenario(body, image=ImageConfig(cmd=("sh",), volumes=("/data",)))
    assert asked[0] is volatile and asked[-1] is False


def test_steps_between_images_are_hidden() -> None:
    async def body(bench: Bench) -> None:
        base = bench.images.image
        step = msgspec.structs.replace(base, id="sha256:step", tags=(), parent=base.id)
        last = msgspec.structs.replace(base, id="sha256:last", tags=("app:1",), parent=step.id)
        loose = msgspec.structs.replace(base, id="sha256:loose", tags=(), parent=base.id)
        everything: tuple[Image, ...] = (base, step, last, loose)
        bench.images.all = lambda: everything  # type: ignore[method-assign]
        images = bench.engine.images
        assert {image.id for image in images.all()} == {image.id for image in everything}
        assert {image.id for image in images.all(intermediate=False)} == {base.id, last.id, loose.id}

    scenario(body)


def test_images_of_a_running_build_are_in_use() -> None:
    async def body(bench: Bench) -> None:
        told: list[dict[str, str]] = []

        def remove(reference: str, *, force: bool, in_use: dict[str, str]) -> tuple[()]:
            told.append(dict(in_use))
            return ()

        bench.images.remove = remove  # type: ignore[attr-defined]
        bench.engine.images.held = lambda: {"sha256:step": "build x"}
        bench.engine.images.remove("bb")
        assert told == [{"sha256:step": "build x"}]

    scenario(body)


def test_an_engine_without_files_of_builds_says_so() -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Unsupported, match="building images is not supported"):
            _ = bench.engine.builds

    scenario(body)


def test_the_label_does_not_make_a_container_a_step() -> None:
    """An image may carry it: only the daemon's own word counts."""

    async def body(bench: Bench) -> None:
        created = await bench.engine.containers.create(ContainerConfig(image="bb", labels={BUILD_LABEL: "x"}))
        assert not bench.engine.containers.resolve(created.id).config.build_step

    scenario(body)
