"""A daemon that comes again and finds machines that do not answer."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from silo.errors import Unavailable
from silo.isolation import run_files
from silo.isolation.vm import disk_containers, finding
from silo.isolation.vm.disk_container import RECORD_NAME, DiskRecord
from silo.isolation.vm.disk_containers import DiskContainers
from silo.isolation.vm.finding import ask_each
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.runtime import VmRuntime
from silo.model.ids import new_id
from tests.support.machines import machine_plan, machine_record

LIMIT_S = 0.4


class SilentMachine:
    """Takes the daemon's connection, and says nothing."""

    def __init__(self, ended: list[SilentMachine]) -> None:
        self._ended = ended
        self._theirs: list[socket.socket] = []

    def connect_agent(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._theirs.append(theirs)
        return ours

    async def end(self) -> None:
        for theirs in self._theirs:
            theirs.close()
        self._ended.append(self)


def write_record(root: Path, container_id: str) -> None:
    place = root / "run/vms" / container_id
    place.mkdir(parents=True)
    run_files.save(place / "record.json", machine_record(root, container_id))


async def nothing(*_: Any) -> None: ...


def test_silent_machines_are_waited_for_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(6)]
    for container_id in ids:
        write_record(tmp_path, container_id)
    ended: list[SilentMachine] = []
    known: list[set[str]] = []

    async def adopt(*_: Any) -> SilentMachine:
        return SilentMachine(ended)

    monkeypatch.setattr(finding, "adopt_machine", adopt)
    monkeypatch.setattr(finding, "_ANSWER_LIMIT_S", LIMIT_S)

    async def find_image(_: str) -> Any:
        raise AssertionError

    async def whole() -> float:
        runtime = VmRuntime(run_root=tmp_path / "run", data_root=tmp_path / "data", find_image=find_image)
        runtime._clones = SimpleNamespace(clear_unknown=known.append)  # type: ignore[assignment]
        runtime._pool = SimpleNamespace(open=nothing)  # type: ignore[assignment]
        begun = time.monotonic()
        states = await runtime.recover([*ids, new_id()])
        assert set(states) == set(ids)
        assert not any(state.pid for state in states.values())
        return time.monotonic() - begun

    assert LIMIT_S <= asyncio.run(whole()) < 2 * LIMIT_S
    assert len(ended) == len(ids) and known == [set()]


def test_machines_that_boot_a_disk_are_asked_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(6)]
    for container_id in ids:
        (tmp_path / container_id).mkdir()
        record = DiskRecord(plan=machine_plan(tmp_path, container_id), first_id=1, pid=1, memory_bytes=1 << 30)
        run_files.save(tmp_path / container_id / RECORD_NAME, record)

    async def adopt(*_: Any, **__: Any) -> None:
        await asyncio.sleep(LIMIT_S)

    monkeypatch.setattr(disk_containers, "WholeGuest", SimpleNamespace(adopt=adopt))
    containers = DiskContainers(tmp_path, *(None,) * 4)  # type: ignore[arg-type]
    begun = time.monotonic()
    states = asyncio.run(containers.recover(ids))
    assert set(states) == set(ids)
    assert time.monotonic() - begun < 2 * LIMIT_S


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ([["starting"], ["starting"], ["running"]], "running"),
        ([["starting"], ["exited"]], "exited"),
        ([["starting"], []], ""),
        ([["starting"]] * 100, ""),
    ],
)
def test_a_container_that_was_being_started_is_waited_for(
    seen: list[list[str]], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "_ANSWER_LIMIT_S", LIMIT_S)
    left = list(seen)

    async def connect(**_: Any) -> Any:
        return SimpleNamespace(tasks=[SimpleNamespace(task=MAIN, state=state) for state in left.pop(0)])

    async def greet() -> str:
        try:
            return (await finding._greet(SimpleNamespace(connect=connect))).state  # type: ignore[arg-type]
        except Unavailable:
            return ""

    assert asyncio.run(greet()) == found


@pytest.mark.parametrize("count", [1, 8, 20])
def test_not_all_of_many_are_asked_at_once(count: int) -> None:
    asked: list[str] = []
    now, most = 0, 0

    async def ask(container_id: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        asked.append(container_id)

    ids = [str(number) for number in range(count)]
    asyncio.run(ask_each(ids, ask))
    assert sorted(asked) == sorted(ids)
    assert most == min(count, 8)
