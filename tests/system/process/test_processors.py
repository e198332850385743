"""A silo starts on one processor and then has all that its container may use: Wine, its server and the program alike."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from silo.host.cgroups import parse_processors
from silo.model.container import Resources
from silo.model.runtime import ContainerPlan
from tests.contract.subjects import WindowsSubject
from tests.support.probes import require
from tests.system.process.test_warm import wait_for_warm


def ours() -> frozenset[int]:
    """All processors of this machine; one with a single processor has nothing to show."""
    found = frozenset(os.sched_getaffinity(0))
    require("two processors", len(found) > 1, f"there is {found}")
    return found


def allowed(subject: WindowsSubject, container_id: str) -> dict[str, set[frozenset[int]]]:
    """Program → what its threads may run on, as the kernel has it."""
    found: dict[str, set[frozenset[int]]] = {}
    runtime = subject.runtime
    for pid in runtime._cgroups.pids(runtime._lives[container_id].record.cgroup):
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found.setdefault(name, set()).add(parse_processors(fields["Cpus_allowed_list"]))
    return found


async def until_all(subject: WindowsSubject, container_id: str, wanted: frozenset[int]) -> None:
    async with asyncio.timeout(10):
        while any(sets != {wanted} for sets in allowed(subject, container_id).values()):
            await asyncio.sleep(0.05)
    assert {"wineserver64", "services.exe"} <= set(allowed(subject, container_id))


async def check(subject: WindowsSubject, plan: ContainerPlan, wanted: frozenset[int], *, warm: bool = False) -> None:
    async with subject.started(plan) as container_id:
        live = subject.runtime._lives[container_id]
        assert live.warm is warm
        assert live.processors == (wanted if len(wanted) > 1 else frozenset())
        await subject.until_output(plan, "\n")
        if not plan.resources.cpuset_cpus:
            assert int(subject.output(plan), 16) == sum(1 << number for number in wanted)
        await until_all(subject, container_id, wanted)


async def test_started_cold(cold_subject: WindowsSubject) -> None:
    processors = ours()
    await check(cold_subject, cold_subject.plan("processors", "30"), processors)


async def test_from_the_pool(warm_subject: WindowsSubject) -> None:
    processors = ours()
    await warm_subject.run(warm_subject.plan("say", "cold"))
    await wait_for_warm(warm_subject)
    await check(warm_subject, warm_subject.plan("processors", "30"), processors, warm=True)


async def test_not_more_than_the_container_may_use(cold_subject: WindowsSubject) -> None:
    last = max(ours())
    plan = cold_subject.plan("processors", "30", resources=Resources(cpuset_cpus=str(last)))
    await check(cold_subject, plan, frozenset({last}))


async def test_a_daemon_that_dies_meanwhile_leaves_it_to_the_next(cold_subject: WindowsSubject) -> None:
    subject, processors = cold_subject, ours()
    plan = subject.plan("processors", "30")
    await subject.runtime.prepare(plan)
    await subject.runtime.start(plan.id)
    live = subject.runtime._lives[plan.id]
    assert live.widening is not None
    live.widening.cancel()
    await subject.connect()
    assert (await subject.runtime.recover([plan.id]))[plan.id].pid > 0
    await until_all(subject, plan.id, processors)
    await subject.runtime.release(plan.id)
