"""Samples of a whole guest, made of what it and QEMU say."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from silo.errors import HostError, Unsupported
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.whole.statistics import process_times, read_statistics, resident_bytes
from silo.model.runtime import Statistics
from tests.unit.isolation.vm.whole.fake_agent import FakeAgent, Refusal, scenario


class Monitor:
    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    async def execute(self, command: str, **arguments: Any) -> Any:
        answer = self.answers.get(command.replace("-", "_"))
        if isinstance(answer, Exception):
            raise answer
        return answer


def sample(monitor: Monitor) -> Statistics:
    """Without an agent."""
    client = cast(QmpClient, monitor)
    return asyncio.run(read_statistics(client, None, os.getpid(), 1 << 30, of_guest=False))[0]


def test_of_the_host_when_nobody_tells() -> None:
    read = sample(Monitor(qom_get=HostError("no driver"), query_blockstats=HostError("no")))
    assert read.cpu_total_ns == read.cpu_user_ns + read.cpu_system_ns > 0
    assert read.memory_bytes > 1 << 20 and read.memory_limit_bytes == 1 << 30


def test_memory_and_disk_as_qemu_knows_them() -> None:
    stats = {"stat-total-memory": 1000, "stat-free-memory": 400, "stat-disk-caches": 250, "stat-swap-in": 1}
    disks = [{"qdev": "disk0", "stats": {"rd_bytes": 5, "wr_bytes": 7}}, {"stats": {"rd_bytes": 99, "wr_bytes": 99}}]
    read = sample(Monitor(qom_get={"stats": stats}, query_blockstats=disks))
    assert (read.memory_bytes, read.memory_inactive_file_bytes) == (600, 250)
    assert (read.block_read_bytes, read.block_write_bytes) == (5, 7)


@pytest.mark.parametrize(
    "untrusted", [None, [], 7, {"stats": 5}, {"stats": {"stat-total-memory": "x"}}, [5, {"stats": 1}]]
)
def test_any_answer_is_a_sample(untrusted: Any) -> None:
    unknown = {"stats": {"stat-total-memory": 2**64 - 1}}
    for answer in (untrusted, unknown):
        assert sample(Monitor(qom_get=answer, query_blockstats=answer)).memory_bytes == pytest.approx(
            resident_bytes(os.getpid()), rel=0.5
        )


def test_processor_times_of_the_agent() -> None:
    async def body(agent: Any, fake: FakeAgent) -> None:
        cpu = {"type": "linux", "cpu": 0, "user": 10, "nice": 1, "system": 5, "idle": 99, "irq": 2, "softirq": 3}
        fake.answers["guest-get-cpustats"] = lambda _: [cpu, cpu]
        client = cast(QmpClient, Monitor())
        read, of_guest = await read_statistics(client, agent, os.getpid(), 1 << 30, of_guest=True)
        assert of_guest and (read.cpu_user_ns, read.cpu_system_ns) == (22_000_000, 20_000_000)

        def refuse(arguments: Any) -> None:
            raise Refusal("CommandNotFound", "old")

        fake.answers["guest-get-cpustats"] = refuse
        with pytest.raises(Unsupported):
            await read_statistics(client, agent, os.getpid(), 1 << 30, of_guest=True)

    scenario(body)


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert process_times(2**22 + 1) == (0, 0) and resident_bytes(2**22 + 1) == 0
