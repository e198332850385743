"""The watch over a container's machine, with a machine that is made of nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.watching import Watcher, _find_panic, load_exit
from silo.model.exit_codes import KILLED


class Listener:
    def __init__(self) -> None:
        self.ends: list[int] = []

    def on_exit(self, _: str, record: Any) -> None:
        self.ends.append(record.exit_code)

    def on_output(self, _: str) -> None: ...

    def on_out_of_memory(self, _: str) -> None:
        self.ends.append(0)


def container_of(directory: Path, *, connected: bool) -> VmContainer:
    async def never() -> Any:
        await asyncio.Event().wait()

    async def ended() -> None: ...

    machine = SimpleNamespace(alive=False, console=SimpleNamespace(last_lines=lambda count=40: "last words"), end=ended)
    client = SimpleNamespace(is_connected=connected, close=lambda: None)
    session = SimpleNamespace(client=client, vm=machine, on_lost=None)
    plan = SimpleNamespace(id="c" * 64, directory=directory)
    record = SimpleNamespace(plan=plan, started=True)
    main = SimpleNamespace(stdout=None, stderr=None, wait=never)
    clone = SimpleNamespace(name="machine", session=session, vm=machine)
    made: Any = VmContainer(record, clone, SimpleNamespace())  # type: ignore[arg-type]
    made.main, made.announced = main, True
    return made


def watched(
    directory: Path, *, connected: bool, loses: bool = False, memory_kills: int = 0
) -> tuple[VmContainer, Listener]:
    listener = Listener()
    container = container_of(directory, connected=connected)

    async def body() -> None:
        Watcher(listener, {"machine": memory_kills}.__getitem__).watch(container)
        if loses:
            container.clone.session.on_lost(None)
        for _ in range(50):
            await asyncio.sleep(0.001)
        for task in tuple(container.tasks):
            task.cancel()

    asyncio.run(body())
    return container, listener


def test_a_machine_that_went_before_it_was_watched_is_told(tmp_path: Path) -> None:
    container, listener = watched(tmp_path, connected=False)
    assert listener.ends == [KILLED] and container.exit is not None and "last words" in container.exit.error
    found = load_exit(tmp_path)
    assert found is not None and found.exit_code == KILLED


def test_a_machine_that_goes_while_it_is_watched_is_told(tmp_path: Path) -> None:
    assert watched(tmp_path, connected=True, loses=True)[1].ends == [KILLED]


def test_one_that_was_killed_at_its_limit_is_told_as_such(tmp_path: Path) -> None:
    container, listener = watched(tmp_path, connected=True, loses=True, memory_kills=1)
    assert listener.ends == [0, KILLED] and container.exit is not None and container.exit.oom_killed
    assert "limit of memory" in container.exit.error


def test_one_that_stays_is_not(tmp_path: Path) -> None:
    container, listener = watched(tmp_path, connected=True)
    assert listener.ends == [] and container.exit is None


def test_a_panic_is_found_before_a_long_stack() -> None:
    stack = "\n".join(f"[ 4.8{number}]  ? __rb_insert_augmented+0x{number:x}/0x2a0" for number in range(100))
    words = f"[ 4.7] sysrq: Trigger a crash\n[ 4.8] Kernel panic - not syncing: sysrq triggered crash\n{stack}"
    found = _find_panic(words)
    assert found.startswith("[ 4.8] Kernel panic - not syncing: sysrq triggered crash\n") and len(found) <= 1500
    assert _find_panic(stack) == ""
