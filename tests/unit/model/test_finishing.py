"""Work that goes to its end."""

from __future__ import annotations

import asyncio

import pytest

from silo.model.finishing import to_the_end


def test_the_answer_and_the_failure_are_passed_on() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def wait() -> None:
        assert await to_the_end(asyncio.sleep(0, "done")) == "done"
        with pytest.raises(ValueError, match="no"):
            await to_the_end(fail())

    asyncio.run(wait())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_caller_waits(fails: bool) -> None:
    done: list[str] = []

    async def cancel() -> None:
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            done.append("work")
            if fails:
                raise ValueError("told to nobody")

        caller = asyncio.ensure_future(to_the_end(work(), on_cancel=lambda: done.append("hurry")))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(0.01)
        assert not caller.done() and done == ["hurry"]
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(cancel())
    assert done == ["hurry", "work"]
