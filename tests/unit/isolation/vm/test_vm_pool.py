"""The pool by itself: what it keeps, gives out and gives up; the clones are made of nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from silo.errors import HostError
from silo.isolation.vm import vm_pool
from silo.isolation.vm.vm_pool import VmPool, VmRecipe
from silo.model.platform import PersonalityName

MIB = 1 << 20


def recipe(name: str = "a", personality: PersonalityName = PersonalityName.LINUX) -> VmRecipe:
    return VmRecipe(
        vm="default", memory_bytes=512 * MIB, processors=1, personality=personality, layers=(Path("/layers") / name,)
    )


class FakeClones:
    """Counts what was made and ended; `asked` are the commands to the monitors."""

    def __init__(self, scratches: Path) -> None:
        self.scratches = scratches
        self.made = 0
        self.ended: list[Any] = []
        self.asked: list[str] = []
        self.failure: Exception | None = None

    async def start(self, _shape: Any, _image: Any, scratch: Path, _limits: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        self.made += 1
        scratch.write_bytes(b"")

        async def done(*_: Any, **__: Any) -> None: ...

        async def execute(command: str) -> None:
            self.asked.append(command)

        session = SimpleNamespace(reseed=done, mount=done)
        machine = SimpleNamespace(alive=True, monitor=SimpleNamespace(execute=execute))
        return SimpleNamespace(session=session, vm=machine, scratch=scratch, begun=None, rooted=False, shape=None)

    async def end(self, clone: Any) -> None:
        self.ended.append(clone)

    def memory_bytes(self, _: Any) -> int:
        return 100 * MIB

    def collect(self, **_: Any) -> int:
        return 0


def scenario(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[Any], Awaitable[None]],
    *,
    size: int = 1,
    ceiling_bytes: int = 1 << 30,
) -> None:
    async def nothing(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(mapped=True, memory_bytes=512 * MIB, maps_image=True)

    monkeypatch.setattr(vm_pool, "rehearse_linux", nothing)
    monkeypatch.setattr(vm_pool, "_REFILL_DELAY_S", 0.0)
    monkeypatch.setattr(vm_pool, "_available", lambda: 0.5)
    clones = FakeClones(tmp_path)

    async def run() -> None:
        images: Any = SimpleNamespace(ensure=nothing)
        pool = VmPool(
            size=size,
            ceiling_bytes=ceiling_bytes,
            clones=clones,  # type: ignore[arg-type]
            images=images,
            seccomp=images,
            scratches=tmp_path,
            shape_of=nothing,
            recipe_file=tmp_path / "pool.json",
        )
        await pool.open()
        try:
            await body(SimpleNamespace(pool=pool, clones=clones))
        finally:
            await pool.close()

    asyncio.run(asyncio.wait_for(run(), 10))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_what_was_started_last_stands_ready_and_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Any) -> None:
        assert bench.pool.take(recipe()) is None
        bench.pool.learn(recipe())
        await settled()
        assert bench.clones.asked == ["stop"] and bench.pool.report() == "1 ready"
        assert bench.pool.take(recipe("b")) is None
        clone = bench.pool.take(recipe())
        assert clone is not None and clone.rooted and bench.pool.take(recipe()) is None

    scenario(tmp_path, monkeypatch, body)


def test_what_is_learned_while_one_is_made_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Any) -> None:
        start, begun = bench.clones.start, asyncio.Event()

        async def slow(*words: Any) -> Any:
            begun.set()
            await asyncio.sleep(0.01)
            return await start(*words)

        bench.clones.start = slow
        bench.pool.learn(recipe("a"))
        await begun.wait()
        bench.pool.learn(recipe("b"))
        while len(bench.clones.ended) < 1:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        assert bench.pool.report() == "1 ready" and bench.pool.take(recipe("b")) is not None

    scenario(tmp_path, monkeypatch, body)


def test_another_image_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Any) -> None:
        bench.pool.learn(recipe("a"))
        await settled()
        bench.pool.learn(recipe("windows", PersonalityName.WINDOWS))
        bench.pool.learn(recipe("b"))
        await settled()
        assert bench.pool.take(recipe("a")) is None and len(bench.clones.ended) == 1
        assert not bench.clones.ended[0].scratch.exists()
        assert bench.pool.take(recipe("b")) is not None
        assert bench.pool.take(recipe("windows", PersonalityName.WINDOWS)) is not None

    scenario(tmp_path, monkeypatch, body)


def test_one_that_died_is_not_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Any) -> None:
        bench.pool.learn(recipe())
        await settled()
        bench.pool._ready[0][1].vm.alive = False
        assert bench.pool.take(recipe()) is None
        await settled()
        assert len(bench.clones.ended) == 1

    scenario(tmp_path, monkeypatch, body)


@pytest.mark.parametrize(("size", "ceiling", "expected"), [(0, 1 << 30, 0), (5, 250 * MIB, 3), (2, 1 << 30, 2)])
def test_size_and_ceiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, ceiling: int, expected: int
) -> None:
    async def body(bench: Any) -> None:
        bench.pool.learn(recipe())
        await settled()
        assert bench.clones.made == expected

    scenario(tmp_path, monkeypatch, body, size=size, ceiling_bytes=ceiling)


def test_a_host_short_of_memory_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Any) -> None:
        monkeypatch.setattr(vm_pool, "_available", lambda: 0.15)
        bench.pool.learn(recipe())
        await settled()
        assert bench.clones.made == 0

    scenario(tmp_path, monkeypatch, body)


def test_pressure_gives_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_pool, "_LOOK_S", 0.02)

    async def body(bench: Any) -> None:
        bench.pool.learn(recipe())
        await settled()
        monkeypatch.setattr(vm_pool, "_available", lambda: 0.05)
        await asyncio.sleep(0.1)
        assert len(bench.clones.ended) == 1 and bench.pool.report() == "0 ready"

    scenario(tmp_path, monkeypatch, body)


def test_the_next_daemon_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def learn(bench: Any) -> None:
        bench.pool.learn(recipe())
        await settled()

    async def remembered(bench: Any) -> None:
        await settled()
        assert bench.pool.take(recipe()) is not None

    scenario(tmp_path, monkeypatch, learn)
    scenario(tmp_path, monkeypatch, remembered)


def test_what_cannot_be_made_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Any) -> None:
        bench.clones.failure = HostError("no machine today")
        bench.pool.learn(recipe())
        await settled()
        assert "no machine today" in caplog.text and bench.pool.report() == "0 ready"

    scenario(tmp_path, monkeypatch, body)
