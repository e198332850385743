"""The same runtime where cgroup v2 is all there is: in a mount namespace that shows a host so, whatever this one is."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from silo.host import mounts, namespaces
from silo.isolation.process.namespace import enter_mount_namespace
from silo.isolation.process.runtime import ProcessRuntime
from tests.contract.conftest import stop_keeper
from tests.contract.subjects import LinuxSubject, close_streams, collect

CGROUPS = Path("/sys/fs/cgroup")


def test_containers_on_a_unified_hierarchy(places: Path, linux_layer: Path) -> None:
    run_root = places / "run-unified"
    run_root.mkdir(mode=0o711)

    def make() -> ProcessRuntime:
        return ProcessRuntime(run_root=run_root, data_root=places / "data", linux_pool=1, windows_pool=0)

    async def body() -> None:
        subject = LinuxSubject(make, places / "data", (linux_layer,))
        async with subject.opened():
            assert subject.runtime.report().cgroup_version == "2"
            _, out, _ = await subject.run(subject.plan("say", "unified"))
            assert out == "unified\n"
            plan = subject.plan("ticks", "1000")
            async with subject.started(plan) as container_id:
                await subject.until_output(plan, "tick 1")
                group = CGROUPS / subject.runtime._cgroups.parent / container_id
                running = await subject.runtime.exec(
                    container_id, subject.program("sleep", "100"), stdin=False, stdout=False, stderr=False
                )
                assert len((group / "cgroup.procs").read_text().split()) == 2
                await subject.runtime.pause(container_id)
                before = subject.output(plan)
                await asyncio.sleep(0.4)
                assert subject.output(plan) == before
                await subject.runtime.unpause(container_id)
                assert (await subject.runtime.statistics(container_id)).cpu_total_ns > 0
                running_too = await subject.runtime.exec(
                    container_id, subject.program("say", "x"), stdin=False, stdout=True, stderr=False
                )
                assert (await collect(running_too.streams))[0] == b"x\n"
                close_streams(running_too.streams)
                await subject.runtime.signal(container_id, signal.SIGKILL)
                assert (await subject.end(container_id)).exit_code == 137
                assert await running.wait() == 137
            await asyncio.sleep(0.3)
            assert not group.exists()

    def in_namespace() -> None:
        enter_mount_namespace(run_root)
        for point in reversed(mounts.list_mount_points(CGROUPS)):
            mounts.unmount(point)
        mounts.mount("cgroup2", CGROUPS, "cgroup2")
        asyncio.run(body())

    try:
        namespaces.in_thread(in_namespace, unshare_filesystem=True)
    except OSError as error:
        pytest.fail(f"no namespace with cgroup v2 only: {error}")
    finally:
        stop_keeper(run_root / "keeper.sock")
