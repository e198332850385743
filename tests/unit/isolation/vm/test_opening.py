"""Machines that hold a stopped container's disk: one at a time, whoever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from silo.isolation.vm import opening
from silo.isolation.vm.opening import FileOpener
from silo.model.runtime import Rootfs

ROOTFS = Rootfs(layers=(), scratch=Path("/nowhere"))
END_S = 0.05


class Machines:
    """Of one disk: starting one while another has it is the failure that all this is about."""

    def __init__(self) -> None:
        self.alive: list[Any] = []
        self.started = 0

    async def start(self, *_: object, **__: object) -> Any:
        assert not self.alive, "two machines have the disk"

        async def nothing(*_: object, **__: object) -> None:
            await asyncio.sleep(0)

        client = SimpleNamespace(is_connected=True)
        session = SimpleNamespace(reseed=nothing, mount=nothing, unmount=nothing, client=client, guest=object())
        clone = SimpleNamespace(session=session, vm=SimpleNamespace(alive=True, pid=1))
        self.alive.append(clone)
        self.started += 1
        return clone

    async def end(self, clone: Any) -> None:
        await asyncio.sleep(END_S)
        self.alive.remove(clone)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    monkeypatch.setattr(opening, "_IDLE_S", 0.02)
    return Machines()


def opener_of(machines: Machines) -> FileOpener:
    async def find(_: object) -> Any:
        return SimpleNamespace(mapped=False)

    async def shape() -> Any:
        return SimpleNamespace(memory_bytes=1 << 28)

    images: Any = SimpleNamespace(find=find)
    return FileOpener(machines, images, shape)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(opener: FileOpener) -> AsyncIterator[None]:
    async with opener.open("c", ROOTFS, ()):
        yield


def test_one_that_is_wanted_again_stays(machines: Machines) -> None:
    async def body() -> None:
        opener = opener_of(machines)
        for _ in range(3):
            async with opened(opener):
                pass
        await opener.close()

    asyncio.run(body())
    assert (machines.started, machines.alive) == (1, [])


@pytest.mark.parametrize("pause_s", [0.021, 0.03, 0.05, 0.065])
def test_who_comes_while_one_goes_waits_for_that(machines: Machines, pause_s: float) -> None:
    async def body() -> None:
        opener = opener_of(machines)
        for _ in range(5):
            async with opened(opener):
                await asyncio.sleep(0.001)
            await asyncio.sleep(pause_s)
        await opener.close()

    asyncio.run(body())
    assert machines.started > 1 and machines.alive == []


def test_a_start_that_takes_the_disk_away_waits_for_the_end(machines: Machines) -> None:
    async def body() -> None:
        opener = opener_of(machines)
        async with opened(opener):
            pass
        await asyncio.sleep(0.03)
        await opener.give_way("c")
        assert machines.alive == []

    asyncio.run(body())


@pytest.mark.parametrize(
    "lose",
    [
        lambda clone: setattr(clone.vm, "alive", False),
        lambda clone: setattr(clone.session.client, "is_connected", False),
    ],
)
def test_one_that_does_not_answer_is_replaced(machines: Machines, lose: Callable[[Any], None]) -> None:
    async def body() -> None:
        opener = opener_of(machines)
        async with opened(opener):
            pass
        lose(machines.alive[0])
        async with opened(opener):
            pass
        await opener.close()

    asyncio.run(body())
    assert (machines.started, machines.alive) == (2, [])
