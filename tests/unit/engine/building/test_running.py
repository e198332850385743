"""RUN over a fake runtime: output as it comes, what an exit code means, and which containers stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from silo.engine.building.commands import Executed
from silo.engine.building.failure import StepFailed
from silo.engine.building.request import BuildRequest
from silo.engine.building.running import BUILD_LABEL, Runner, RunStep
from silo.errors import ProcessStartFailed
from silo.model.image import HistoryEntry, Image, ImageConfig
from tests.unit.engine.building.fakes import MemoryStore, Said
from tests.unit.engine.fakes import Bench

STEP = RunStep(
    command=Executed(args=("sh", "-c", "make")), shown="sh -c make", env=("A=1",), network_mode="none", mounts=()
)


class Layers:
    @asynccontextmanager
    async def open_layer(self, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield reference.encode()

        yield pieces()


class Scene:
    """One runner over one engine."""

    def __init__(self, bench: Bench, **request: Any) -> None:
        self.bench = bench
        self.output = Said()
        self.store = MemoryStore(bench.images.image)
        self.runner = Runner(
            bench.engine.containers,
            Layers(),
            self.store,  # type: ignore[arg-type]
            BuildRequest(**request),
            self.output,
            build_id="b",
        )

    def begin(self) -> asyncio.Task[Image]:
        work = self.runner.run(
            STEP, self.bench.images.image, ImageConfig(user="me", working_dir="/w"), HistoryEntry(created_by="x")
        )
        return asyncio.ensure_future(work)

    async def running(self) -> str:
        """The id of the step's container once it runs."""
        while not self.bench.runtime.running:
            await asyncio.sleep(0.005)
        return next(iter(self.bench.runtime.running))

    @property
    def left(self) -> int:
        return len(self.bench.engine.containers.all())


def scenario(body: Callable[[Scene], Coroutine[Any, Any, None]], **request: Any) -> None:
    async def whole() -> None:
        bench = Bench(image=ImageConfig(cmd=("sh",)))
        await bench.engine.open()
        await asyncio.wait_for(body(Scene(bench, **request)), 20)

    asyncio.run(whole())


def test_output_comes_as_it_is_written() -> None:
    async def body(scene: Scene) -> None:
        task = scene.begin()
        container = await scene.running()
        record = scene.bench.engine.containers.resolve(container)
        assert record.config.labels[BUILD_LABEL] == "b" and record.config.build_step
        assert (record.config.user, record.config.working_dir, record.config.env) == ("me", "/w", ("A=1",))
        assert record.config.network_mode == "none" and record.config.entrypoint == ()
        half = "ä".encode()
        scene.bench.runtime.write(container, b"one " + half[:1])
        while "one" not in scene.output.text:
            await asyncio.sleep(0.005)
        scene.bench.runtime.write(container, half[1:] + b"\n")
        scene.bench.runtime.write(container, b"err\n", 2)
        scene.bench.runtime.end(container, 0)
        image = await task
        assert scene.output.text == (
            f" ---> Running in {container[:12]}\none ä\nerr\n ---> Removed intermediate container {container[:12]}\n"
        )
        assert image.parent == scene.bench.images.image.id
        assert scene.left == 0

    scenario(body)


@pytest.mark.parametrize(
    ("code", "options", "left"),
    [
        (0, {}, 0),
        (0, {"remove": False}, 1),
        (3, {}, 1),
        (3, {"force_remove": True}, 0),
        (0, {"remove": False, "force_remove": True}, 0),
    ],
)
def test_which_containers_stay(code: int, options: dict[str, bool], left: int) -> None:
    async def body(scene: Scene) -> None:
        task = scene.begin()
        scene.bench.runtime.end(await scene.running(), code)
        if code:
            with pytest.raises(StepFailed, match="The command 'sh -c make' returned a non-zero code: 3") as failed:
                await task
            assert failed.value.code == code
        else:
            await task
        assert scene.left == left

    scenario(body, **options)


def test_a_program_that_cannot_be_started() -> None:
    async def body(scene: Scene) -> None:
        scene.bench.runtime.fail_start = ProcessStartFailed("no such program", kind="not_found")
        with pytest.raises(ProcessStartFailed):
            await scene.begin()
        assert scene.left == 0

    scenario(body)


def test_a_cancelled_step_ends_its_container() -> None:
    async def body(scene: Scene) -> None:
        task = scene.begin()
        await scene.running()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.left == 0 and not scene.bench.runtime.running
        assert len(scene.store.images) == 1

    scenario(body)


def test_a_client_that_is_gone_before_the_first_word() -> None:
    async def body(scene: Scene) -> None:
        async def say(_text: str) -> None:
            raise ConnectionResetError

        scene.output.say = say  # type: ignore[method-assign]
        with suppress(ConnectionResetError):
            await scene.begin()
        assert scene.left == 0

    scenario(body)


@pytest.mark.parametrize("force_remove", [False, True])
def test_somebody_else_removes_the_container(force_remove: bool) -> None:
    async def body(scene: Scene) -> None:
        task = scene.begin()
        await scene.bench.engine.containers.remove(await scene.running(), force=True)
        with pytest.raises(StepFailed, match="non-zero code: 137"):
            await task

    scenario(body, force_remove=force_remove)
