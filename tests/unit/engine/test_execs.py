"""Execs over fakes: a client that goes away in the middle of a start."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from silo.engine.ports import ExecRequest
from silo.model.container import ContainerConfig
from silo.model.runtime import ExecStreams, ProcessPlan
from tests.unit.engine.fakes import Bench, FakePersonality


class FakeExec:
    pid = 77

    def __init__(self, output: int) -> None:
        self.streams = ExecStreams(stdout=output)
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await self.ended


def test_a_client_that_goes_away_while_its_program_starts_leaves_it_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ProcessPlan(args=("sleep",))
    monkeypatch.setattr(FakePersonality, "plan_exec", lambda *_args, **_words: plan, raising=False)

    async def body() -> None:
        bench = Bench()
        await bench.engine.open()
        output, program_end = os.pipe()
        go, started = asyncio.Event(), FakeExec(output)

        async def slow(*_args: Any, **_words: Any) -> FakeExec:
            await go.wait()
            return started

        monkeypatch.setattr(bench.runtime, "exec", slow, raising=False)
        containers, execs = bench.engine.containers, bench.engine.execs
        container = (await containers.create(ContainerConfig(image="bb"), name="c1")).id
        await containers.start(container)
        exec_id = execs.create(container, ExecRequest(args=("sleep",), attach_stdout=True))
        client = asyncio.create_task(execs.start(exec_id, detach=False, tty=False, console_size=None))
        await asyncio.sleep(0.01)
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        go.set()
        await asyncio.sleep(0.01)
        assert execs.get(exec_id).running
        with pytest.raises(OSError):
            os.fstat(output)
        started.ended.set_result(5)
        await asyncio.sleep(0.01)
        assert (execs.get(exec_id).running, execs.get(exec_id).exit_code) == (False, 5)
        os.close(program_end)

    asyncio.run(asyncio.wait_for(body(), 20))
