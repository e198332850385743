"""Silos started ahead: what a container gets from the pool is as its plan says, and nobody gets it twice."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec

from silo.host import namespaces
from silo.model.container import Resources
from silo.model.mount import MountKind, PlannedMount
from silo.model.runtime import ContainerPlan
from tests.contract.subjects import WindowsSubject, close_streams, collect


def warm_count(subject: WindowsSubject) -> int:
    return len(subject.runtime._warm.names())


async def wait_for_warm(subject: WindowsSubject) -> None:
    async with asyncio.timeout(60):
        while not warm_count(subject):
            await asyncio.sleep(0.1)


def hostname_of(pid: int) -> str:
    descriptor = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)

    def ask() -> str:
        namespaces.join(descriptor)
        return socket.gethostname()

    try:
        return namespaces.in_thread(ask)
    finally:
        os.close(descriptor)


def named(plan: ContainerPlan, name: str) -> ContainerPlan:
    env = tuple(word for word in plan.process.env if not word.startswith("SILO_COMPUTER_NAME="))
    process = msgspec.structs.replace(plan.process, env=(*env, f"SILO_COMPUTER_NAME={name}"))
    return msgspec.structs.replace(plan, process=process, hostname=name.lower())


async def test_a_container_from_the_pool(warm_subject: WindowsSubject, places: Path) -> None:
    subject = warm_subject
    await subject.run(named(subject.plan("say", "cold"), "FIRST"))
    await wait_for_warm(subject)
    (made_ahead,) = subject.runtime._warm.names()
    folder = places / "warm-folder"
    folder.mkdir()
    (folder / "given").write_text("shared")
    target, guest = subject.mount_target("shared")
    mounts = (
        PlannedMount(target=target, source=folder, kind=MountKind.BIND),
        PlannedMount(target="/etc/hosts", source=folder / "given", kind=MountKind.BIND, read_only=True),
    )
    limits = Resources(memory_bytes=900 << 20, pids_limit=300)
    plan = named(subject.plan("env", "COMPUTERNAME", mounts=mounts, resources=limits), "SECOND")
    async with subject.started(plan) as container_id:
        assert subject.runtime._lives[container_id].warm
        assert made_ahead not in subject.runtime._lives
        record = await subject.end(container_id)
        assert (record.exit_code, subject.output(plan)) == (0, "SECOND\n")
    await wait_for_warm(subject)
    plan = named(subject.plan("sleep", "100", mounts=mounts, resources=limits, open_stdin=True), "THIRD")
    async with subject.started(plan) as container_id:
        live = subject.runtime._lives[container_id]
        assert live.warm and live.record.cgroup != made_ahead
        statistics = await subject.runtime.statistics(container_id)
        assert (statistics.memory_limit_bytes, statistics.pids_limit) == (900 << 20, 300)
        root = subject.runtime.root_path(container_id)
        assert root is not None
        inside = Path(f"/proc/{live.record.pid}/root")
        assert (inside / "etc/hosts").read_text() == "shared"
        assert hostname_of(live.record.pid) == "third"
        for words, expected in (
            (("read", f"{guest}\\given"), b"shared"),
            (("write", f"{guest}\\made", "text"), b""),
            (("write", "C:\\own", "mine"), b""),
        ):
            running = await subject.runtime.exec(
                container_id, subject.program(*words), stdin=False, stdout=True, stderr=True
            )
            assert (await collect(running.streams))[0] == expected and await running.wait() == 0
            close_streams(running.streams)
        assert (folder / "made").read_text() == "text" and (folder / "made").stat().st_uid == 0
        own = plan.directory / "upper" / subject.DRIVE.lstrip("/") / "own"
        assert own.read_text() == "mine" and own.stat().st_uid == 0
    assert not list((places / "data" / "warm").glob(f"{made_ahead}*"))


async def test_a_scratch_that_is_not_empty_is_never_replaced(warm_subject: WindowsSubject) -> None:
    subject = warm_subject
    await subject.run(named(subject.plan("say", "cold"), "FIRST"))
    await wait_for_warm(subject)
    plan = named(subject.plan("read", "C:\\before"), "OTHER")
    before = plan.directory / "upper" / subject.DRIVE.lstrip("/") / "before"
    before.parent.mkdir(parents=True)
    before.write_text("from cp")
    _, out, _ = await subject.run(plan)
    assert out == "from cp"


async def test_a_silo_of_another_image_is_never_taken(warm_subject: WindowsSubject, places: Path) -> None:
    subject = warm_subject
    await subject.run(named(subject.plan("say", "cold"), "FIRST"))
    await wait_for_warm(subject)
    other = places / "other-layer"
    drive = other / subject.DRIVE.lstrip("/")
    drive.mkdir(parents=True)
    (drive / "other.txt").write_text("of the other image")

    def of_other(name: str) -> ContainerPlan:
        plan = named(subject.plan("read", "C:\\other.txt"), name)
        return msgspec.structs.replace(
            plan, rootfs=msgspec.structs.replace(plan.rootfs, layers=(other, *plan.rootfs.layers))
        )

    # The second one comes while the silo of the first image still waits.
    for name in ("SECOND", "THIRD"):
        _, out, _ = await subject.run(of_other(name))
        assert out == "of the other image"


async def test_a_pool_leaves_nothing_behind(warm_subject: WindowsSubject, places: Path) -> None:
    subject = warm_subject
    await subject.run(named(subject.plan("say", "cold"), "FIRST"))
    await wait_for_warm(subject)
    names = subject.runtime._warm.names()
    await subject.runtime.close()
    assert not list((places / "data" / "warm").iterdir())
    assert not any((places / "run" / "containers" / name).exists() for name in names)
    # what a killed daemon leaves is found by the next
    (places / "data" / "warm" / "stale").mkdir()
    await subject.connect()
    await subject.runtime.recover([])
    assert not (places / "data" / "warm" / "stale").exists()
