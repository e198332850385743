"""The lifecycle over fakes: what follows from a start, an end, a crash."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from silo.errors import (
    Conflict,
    GuestError,
    ImageNotFound,
    InvalidRequest,
    NotFound,
    NotModified,
    ProcessStartFailed,
    ToolMissing,
)
from silo.model.clock import now
from silo.model.container import ContainerConfig, LogConfig, Resources, RestartPolicy, Status
from silo.model.image import ImageConfig
from silo.model.mount import MountKind, MountRequest
from silo.model.network import EndpointRequest
from silo.model.runtime import ContainerPlan, ExitRecord, RuntimeState, Sandbox
from tests.unit.engine.fakes import Bench


def scenario(body: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run one async scenario over a fresh engine."""

    async def whole() -> None:
        bench = Bench(**options)
        try:
            await bench.engine.open()
            await body(bench)
        finally:
            shutil.rmtree(bench.root, ignore_errors=True)

    asyncio.run(asyncio.wait_for(whole(), 20))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def create(bench: Bench, name: str = "c1", **config: Any) -> str:
    return (await bench.engine.containers.create(ContainerConfig(image="bb", **config), name=name)).id


def test_wait_before_start_sees_the_exit_code() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        waiting = bench.engine.containers.subscribe_wait(container, "next-exit")
        await bench.engine.containers.start(container)
        assert bench.engine.containers.resolve("c1").state.status is Status.RUNNING
        bench.runtime.end(container, 300)
        assert (await waiting).exit_code == 300
        await until(lambda: bench.engine.containers.resolve("c1").state.status is Status.EXITED)
        assert bench.networks.released == [container]
        assert not bench.runtime.prepared

    scenario(body)


def test_auto_remove_leaves_nothing_and_answers_removed_waits() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, auto_remove=True)
        waiting = bench.engine.containers.subscribe_wait(container, "removed")
        await bench.engine.containers.start(container)
        bench.runtime.end(container, 5)
        assert (await waiting).exit_code == 5
        with pytest.raises(NotFound):
            bench.engine.containers.resolve("c1")
        assert not (bench.root / container).exists()
        assert not bench.documents.rows

    scenario(body)


def test_a_link_to_nobody_is_refused_and_leaves_nothing() -> None:
    async def body(bench: Bench) -> None:
        def linked(name: str) -> tuple[EndpointRequest, ...]:
            return (EndpointRequest(network="default", links=(f"{name}:other",)),)

        with pytest.raises(InvalidRequest, match="could not get container for nobody"):
            await create(bench, "lonely", endpoints=linked("nobody"))
        assert not bench.documents.rows and not list(bench.root.iterdir())
        await create(bench, "here")
        await create(bench, "linked", endpoints=linked("here"))

    scenario(body)


def test_a_failed_start_releases_everything_and_says_why() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        bench.runtime.fail_start = ProcessStartFailed("nope", kind="not_found")
        with pytest.raises(ProcessStartFailed):
            await bench.engine.containers.start(container)
        state = bench.engine.containers.resolve("c1").state
        assert (state.status, state.exit_code) == (Status.CREATED, 127)
        assert "nope" in state.error
        assert not bench.runtime.prepared

    scenario(body)


def test_a_failed_start_with_auto_remove_leaves_nothing_and_answers_removed_waits() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, auto_remove=True)
        waiting = bench.engine.containers.subscribe_wait(container, "removed")
        bench.runtime.fail_start = ProcessStartFailed("nope", kind="not_found")
        with pytest.raises(ProcessStartFailed):
            await bench.engine.containers.start(container)
        assert (await asyncio.wait_for(waiting, 5)).exit_code == 127
        assert not bench.documents.rows

    scenario(body)


def test_attachment_from_before_the_start_gets_all_output_and_ends() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        attachment = await bench.engine.containers.attach(container, stdin=False, stdout=True, stderr=True)

        async def collect() -> list[tuple[int, bytes]]:
            return [item async for item in attachment.output()]

        reading = asyncio.create_task(collect())
        await bench.engine.containers.start(container)
        bench.runtime.write(container, b"one\n")
        await asyncio.sleep(0)
        bench.runtime.write(container, b"two\n", stream=2)
        bench.runtime.end(container)
        assert await reading == [(1, b"one\n"), (2, b"two\n")]

    scenario(body)


def test_on_failure_restarts_until_the_maximum() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, restart=RestartPolicy(name="on-failure", maximum_retries=2))
        await bench.engine.containers.start(container)
        for expected in (1, 2):
            bench.runtime.end(container, 1)
            await until(lambda: container in bench.runtime.running)
            assert bench.engine.containers.resolve(container).state.restart_count == expected
        bench.runtime.end(container, 1)
        await until(lambda: bench.engine.containers.resolve(container).state.status is Status.EXITED)

    scenario(body)


def test_stop_ends_a_restart_policy_and_kills_after_the_grace() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, restart=RestartPolicy(name="always"))
        await bench.engine.containers.start(container)
        bench.runtime.ends_on_term = False
        await bench.engine.containers.stop(container, 0)
        assert [number for _, number in bench.runtime.signals] == [15, 9]
        assert bench.engine.containers.resolve(container).state.status is Status.EXITED
        with pytest.raises(NotModified):
            await bench.engine.containers.stop(container, 0)

    scenario(body)


def test_neither_remove_nor_prune_takes_a_container_that_is_being_started() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        containers, go = bench.engine.containers, asyncio.Event()
        prepare = bench.runtime.prepare

        async def slow(plan: ContainerPlan) -> Sandbox:
            await go.wait()
            return await prepare(plan)

        bench.runtime.prepare = slow  # type: ignore[method-assign]
        starting = asyncio.create_task(containers.start(container))
        await asyncio.sleep(0)
        removing = asyncio.create_task(containers.remove(container))
        pruning = asyncio.create_task(containers.prune({}))
        await asyncio.sleep(0)
        go.set()
        await starting
        with pytest.raises(Conflict):
            await removing
        assert await pruning == ((), 0)
        assert containers.resolve(container).state.status is Status.RUNNING
        assert container in bench.runtime.prepared

    scenario(body)


def test_a_restart_keeps_what_rm_would_remove() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench, auto_remove=True)
        await bench.engine.containers.start(container)
        await bench.engine.containers.restart(container, 1)
        record = bench.engine.containers.resolve(container)
        assert record.state.status is Status.RUNNING and record.config.auto_remove
        bench.runtime.end(container)
        await until(lambda: not bench.documents.rows)

    scenario(body)


def test_force_remove_of_a_running_container() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        await bench.engine.containers.start(container)
        with pytest.raises(Conflict, match="stop the container before removing"):
            await bench.engine.containers.remove(container)
        await bench.engine.containers.remove(container, force=True)
        assert not bench.documents.rows

    scenario(body)


@pytest.mark.parametrize(
    ("resources", "restart"),
    [
        (Resources(), RestartPolicy(name="sometimes")),
        (Resources(), RestartPolicy(name="always", maximum_retries=3)),
        (Resources(memory_bytes=1000), None),
    ],
)
def test_update_refuses_what_create_refuses(resources: Resources, restart: RestartPolicy | None) -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        with pytest.raises(InvalidRequest):
            await bench.engine.containers.update(container, resources, restart)
        assert bench.engine.containers.resolve(container).config.restart.name == "no"

    scenario(body)


def test_another_number_of_log_files_is_told() -> None:
    async def body(bench: Bench) -> None:
        def config(files: str) -> ContainerConfig:
            return ContainerConfig(image="bb", log=LogConfig(options={"max-file": files}))

        assert (await bench.engine.containers.create(config("2"))).warnings == ()
        assert "max-file=5" in (await bench.engine.containers.create(config("5"))).warnings[0]
        with pytest.raises(InvalidRequest, match="max-file=many"):
            await bench.engine.containers.create(config("many"))

    scenario(body)


def test_names_of_a_container_are_shared_up_to_a_size() -> None:
    async def body(bench: Bench) -> None:
        owner = await create(bench, "owner")
        await bench.engine.containers.start(owner)
        hosts = bench.root / owner / "hosts"
        hosts.write_text("192.0.2.1 elsewhere\n")
        sharing = await create(bench, "sharing", network_mode="container:owner")
        await bench.engine.containers.start(sharing)
        assert (bench.root / sharing / "hosts").read_text() == "192.0.2.1 elsewhere\n"
        os.truncate(hosts, 1 << 40)
        greedy = await create(bench, "greedy", network_mode="container:owner")
        with pytest.raises(GuestError, match="too large"):
            await bench.engine.containers.start(greedy)
        assert greedy not in bench.runtime.prepared

    scenario(body)


def test_stop_kills_what_does_not_even_take_the_signal() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        await bench.engine.containers.start(container)
        signal = bench.runtime.signal

        async def deaf(container_id: str, number: int) -> None:
            if number != signals.SIGKILL:
                await asyncio.sleep(3600)
            await signal(container_id, number)

        bench.runtime.signal = deaf  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await bench.engine.containers.stop(container, 0)
        assert bench.engine.containers.resolve(container).state.exit_code == 137

    scenario(body)


def test_names_are_unique_and_freed() -> None:
    async def body(bench: Bench) -> None:
        await create(bench, "same")
        with pytest.raises(Conflict, match="already in use"):
            await create(bench, "same")
        assert len(list(bench.root.iterdir())) == 1
        await bench.engine.containers.rename("same", "other")
        await create(bench, "same")

    scenario(body)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"restart": RestartPolicy(name="sometimes")}, InvalidRequest),
        ({"restart": RestartPolicy(name="always"), "auto_remove": True}, InvalidRequest),
        ({"network_mode": "container:nobody"}, InvalidRequest),
        ({"log": LogConfig(options={"max-size": "much"})}, InvalidRequest),
        ({"extra_hosts": ("a:1.2.3.4\n6.6.6.6 evil",)}, InvalidRequest),
        ({"extra_hosts": ("nowhere",)}, InvalidRequest),
        ({"dns": ("notip",)}, InvalidRequest),
        ({"dns_search": ("a\nnameserver 6.6.6.6",)}, InvalidRequest),
        ({"mounts": (MountRequest(kind=MountKind.BIND, source="rel", target="/x"),)}, InvalidRequest),
        ({"mounts": (MountRequest(kind=MountKind.TMPFS, target="/"),)}, InvalidRequest),
        ({"mounts": (MountRequest(kind=MountKind.TMPFS, target="/x"),) * 2}, InvalidRequest),
    ],
)
def test_bad_requests_leave_nothing_behind(config: dict[str, Any], error: type[Exception]) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(error):
            await create(bench, **config)
        assert not bench.documents.rows
        assert not list(bench.root.iterdir())
        assert not bench.storage.named

    scenario(body)


def test_an_unknown_image_is_what_makes_a_client_pull() -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(ImageNotFound, match="No such image: nope"):
            await bench.engine.containers.create(ContainerConfig(image="nope"))

    scenario(body)


def test_anonymous_volumes_go_with_rm_and_named_ones_stay() -> None:
    async def body(bench: Bench) -> None:
        named = MountRequest(kind=MountKind.VOLUME, source="keep", target="/keep")
        container = await create(bench, auto_remove=True, mounts=(named,), volumes=("/anonymous",))
        assert len(bench.storage.named) == 3  # the image's own /data, too
        await bench.engine.containers.start(container)
        bench.runtime.end(container)
        await until(lambda: not bench.documents.rows)
        assert set(bench.storage.named) == {"keep"}

    scenario(body, image=ImageConfig(volumes=("/data",)))


@asynccontextmanager
async def crashed(bench: Bench, setup: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """What `setup` left, seen by a new daemon."""
    await setup()
    bench.restart_daemon()
    yield
    await bench.engine.open()


def test_a_container_that_ended_while_the_daemon_was_away() -> None:
    async def body(bench: Bench) -> None:
        plain, removed = await create(bench, "plain"), await create(bench, "gone", auto_remove=True)

        async def setup() -> None:
            await bench.engine.containers.start(plain)
            await bench.engine.containers.start(removed)

        async with crashed(bench, setup):
            for container in (plain, removed):
                record = ExitRecord(exit_code=9, finished_at="2026-01-01T00:00:00Z")
                bench.runtime.found[container] = RuntimeState(id=container, exit=record)
        await until(lambda: removed not in bench.documents.rows)
        state = bench.engine.containers.resolve("plain").state
        assert (state.status, state.exit_code, state.finished_at) == (Status.EXITED, 9, "2026-01-01T00:00:00Z")

    scenario(body)


def test_a_container_that_still_runs_is_adopted_and_can_be_stopped() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        plans = {}

        async def setup() -> None:
            await bench.engine.containers.start(container)
            plans.update(bench.runtime.plans)

        async with crashed(bench, setup):
            bench.runtime.found[container] = RuntimeState(id=container, pid=77)
            bench.runtime.running.update(plans)
        assert bench.engine.containers.resolve(container).state.pid == 77
        await bench.engine.containers.stop(container, 5)
        assert bench.engine.containers.resolve(container).state.exit_code == 143

    scenario(body)


def test_started_but_not_recorded_before_the_crash_is_found_running() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        bench.restart_daemon()
        bench.runtime.found[container] = RuntimeState(id=container, pid=78)
        await bench.engine.open()
        assert bench.engine.containers.resolve(container).state.status is Status.RUNNING

    scenario(body)


def test_half_made_containers_and_removals_are_finished() -> None:
    async def body(bench: Bench) -> None:
        container = await create(bench)
        bench.engine._roster.set_state(bench.engine._roster.resolve(container), status=Status.REMOVING)
        (bench.root / ("f" * 64)).mkdir()
        bench.restart_daemon()
        await bench.engine.open()
        assert not list(bench.root.iterdir())
        assert not bench.documents.rows

    scenario(body)


def test_an_unseen_end_and_its_removal_meet_while_the_daemon_recovers() -> None:
    async def body(bench: Bench) -> None:
        await create(bench, "first")
        removed = await create(
            bench, "gone", auto_remove=True, mounts=(MountRequest(kind=MountKind.VOLUME, target="/v"),)
        )
        await bench.engine.containers.start(removed)
        bench.restart_daemon()
        bench.runtime.found[removed] = RuntimeState(id=removed, exit=ExitRecord(exit_code=0, finished_at=now()))
        remove_scratch, begun = bench.storage.remove_scratch, asyncio.Event()

        async def release(container_id: str) -> None:
            """Recovery is held up at the first container until the end of the second is half dealt with."""
            if container_id != removed:
                await begun.wait()

        async def slow_removal(container_id: str) -> None:
            begun.set()
            await asyncio.sleep(0.05)
            await remove_scratch(container_id)

        bench.runtime.release = release  # type: ignore[method-assign]
        bench.storage.remove_scratch = slow_removal  # type: ignore[method-assign]
        await bench.engine.open()
        await until(lambda: removed not in bench.documents.rows)
        assert [record.name for _, record in bench.documents.items()] == ["first"]
        assert not bench.storage.named

    scenario(body)


def test_always_comes_back_with_the_daemon_and_unless_stopped_only_if_not_stopped() -> None:
    async def body(bench: Bench) -> None:
        always = await create(bench, "a1", restart=RestartPolicy(name="always"))
        unless = await create(bench, "u1", restart=RestartPolicy(name="unless-stopped"))
        for container in (always, unless):
            await bench.engine.containers.start(container)
            await bench.engine.containers.stop(container, 1)
        bench.restart_daemon()
        await bench.engine.open()
        assert set(bench.runtime.running) == {always}

    scenario(body)


def test_why_a_runtime_could_not_be_opened_is_told_whatever_closing_it_says() -> None:
    async def whole() -> None:
        bench = Bench()

        async def fail_to_open(_listener: object) -> None:
            raise ToolMissing("crun")

        async def fail_to_close() -> None:
            raise AttributeError("_pool")

        bench.runtime.open = fail_to_open  # type: ignore[method-assign]
        bench.runtime.close = fail_to_close  # type: ignore[method-assign]
        with pytest.raises(ToolMissing, match="crun is not installed"):
            await bench.engine.open()

    asyncio.run(whole())


@pytest.mark.parametrize(("held", "expected"), [(True, Status.RUNNING), (False, Status.PAUSED)])
def test_what_a_dead_daemon_had_paused_for_a_moment_goes_on(held: bool, expected: Status) -> None:
    """A commit pauses its container; one that a user has paused stays so."""

    async def body(bench: Bench) -> None:
        container = await create(bench, "box")
        await bench.engine.containers.start(container)
        live = bench.engine.containers._roster.resolve(container)
        await bench.engine.containers._lifecycle.pause(live, held=held)
        bench.restart_daemon()
        bench.runtime.found[container] = RuntimeState(id=container, pid=7, paused=True)
        await bench.engine.open()
        state = bench.engine.containers._roster.resolve(container).record.state
        assert (state.status, state.held) == (expected, False)

    scenario(body)
