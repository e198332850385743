"""The use cases around containers that a client names one by one; the heavy ones live in creation and lifecycle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from silo.engine.attachments import ContainerAttachment
from silo.engine.base import VmImageSource
from silo.engine.creation import MINIMUM_MEMORY_BYTES, Created, Creator, check_restart
from silo.engine.disks import check_card, for_card
from silo.engine.events import EventBus
from silo.engine.filters import Filters, check_keys, labels_match, parse_moment_ns
from silo.engine.levels import check_level
from silo.engine.lifecycle import Lifecycle
from silo.engine.limits import check_limits
from silo.engine.logs import LogRecord, read_log
from silo.engine.parts import Parts
from silo.engine.planning import hostname_of, vm_of, write_special_files
from silo.engine.roster import Live, Roster, WaitResult
from silo.engine.states import ALIVE
from silo.errors import Conflict, InvalidRequest, NotFound, SiloError, Unsupported
from silo.model.clock import parse_time
from silo.model.container import ContainerConfig, ContainerRecord, Resources, RestartPolicy, Status
from silo.model.image import Image
from silo.model.log import STDERR, STDOUT
from silo.model.network import Endpoint, EndpointRequest, NetworkStatistics
from silo.model.runtime import ProcessTable, Sandbox, Statistics

log = logging.getLogger(__name__)


class Containers:
    """`docker container …`."""

    def __init__(
        self, parts: Parts, roster: Roster, events: EventBus, lifecycle: Lifecycle, vm_images: VmImageSource
    ) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events
        self._lifecycle = lifecycle
        self._creator = Creator(parts, roster, events, vm_images)

    # Look

    def resolve(self, reference: str) -> ContainerRecord:
        return self._roster.resolve(reference).record

    def all(self) -> tuple[ContainerRecord, ...]:
        """Newest first."""
        return tuple(sorted((live.record for live in self._roster), key=lambda record: record.created, reverse=True))

    def image_of(self, record: ContainerRecord) -> Image | None:
        return self._parts.find_image_of(record)

    def vm_users(self, name: str) -> list[str]:
        """Names of the containers that run in the utility VM of a name."""
        return sorted(live.name for live in self._roster if vm_of(live.record, self._parts.vm_image) == name)

    def sizes(self, reference: str) -> tuple[int, int]:
        """(bytes in the scratch, bytes of scratch and image)."""
        record = self.resolve(reference)
        scratch = self._parts.storage.scratch_size_bytes(record.id)
        image = self.image_of(record)
        return scratch, scratch + (image.size_bytes if image else 0)

    async def processes(self, reference: str, ps_args: str) -> ProcessTable:
        record = self._alive(reference).record
        return await self._parts.runtime(record.isolation).processes(record.id, ps_args)

    async def statistics(self, reference: str) -> tuple[Statistics, tuple[NetworkStatistics, ...]]:
        """A sample now; zeros when it does not run."""
        record = self.resolve(reference)
        if record.state.status not in ALIVE:
            return Statistics(), ()
        sample = await self._parts.runtime(record.isolation).statistics(record.id)
        return sample, await self._parts.networks.statistics(record.id) if record.endpoints else ()

    # Life

    async def create(self, config: ContainerConfig, *, name: str = "") -> Created:
        return self._creator.create(config, name)

    async def start(self, reference: str) -> None:
        await self._lifecycle.start(self._roster.resolve(reference))

    async def stop(self, reference: str, timeout_s: int | None = None, signal: str = "") -> None:
        await self._lifecycle.stop(self._roster.resolve(reference), timeout_s, signal)

    async def restart(self, reference: str, timeout_s: int | None = None, signal: str = "") -> None:
        await self._lifecycle.restart(self._roster.resolve(reference), timeout_s, signal)

    async def kill(self, reference: str, signal: str = "KILL") -> None:
        await self._lifecycle.kill(self._roster.resolve(reference), signal or "KILL")

    async def pause(self, reference: str) -> None:
        await self._lifecycle.pause(self._roster.resolve(reference))

    async def unpause(self, reference: str) -> None:
        await self._lifecycle.unpause(self._roster.resolve(reference))

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        if link:
            raise Unsupported("removing a link (rm --link) is not supported", hint="use user-defined networks")
        await self._lifecycle.remove(self._roster.resolve(reference), force=force, volumes=volumes)

    async def rename(self, reference: str, name: str) -> None:
        live = self._roster.resolve(reference)
        if not name:
            raise InvalidRequest("Neither old nor new names may be empty")
        before = live.name
        self._roster.rename(live, name)
        if live.record.endpoints:
            names = (live.name, live.id[:12], hostname_of(live.record))
            self._roster.replace(live, endpoints=self._parts.networks.rename(live.id, tuple(dict.fromkeys(names))))
        self._lifecycle.publish(live, "rename", oldName=f"/{before}")

    async def update(
        self, reference: str, resources: Resources, restart: RestartPolicy | None = None
    ) -> tuple[str, ...]:
        """Change limits (fields at their default stay as they are) and the restart policy. Answers warnings."""
        live = self._roster.resolve(reference)
        config = live.record.config
        if restart is not None:
            check_restart(restart)
        if restart is not None and restart.name not in ("", "no") and config.auto_remove:
            raise InvalidRequest("Restart policy cannot be updated because AutoRemove is enabled for the container")
        default = Resources()
        changes: dict[str, Any] = {
            name: value
            for name in Resources.__struct_fields__
            if (value := getattr(resources, name)) != getattr(default, name)
        }
        merged = msgspec.structs.replace(config.resources, **changes)
        personality = self._parts.personality(live.record.personality)
        check_limits(merged)
        warnings = personality.check_resources(merged, config.isolation)
        check_level(msgspec.structs.replace(config, resources=merged))
        if 0 < merged.memory_bytes < MINIMUM_MEMORY_BYTES:
            raise InvalidRequest("Minimum memory limit allowed is 6MB")
        if "nano_cpus" in changes and (merged.cpu_quota_us or merged.cpu_period_us):
            raise Conflict("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
        if merged.memory_swap_bytes > 0 and merged.memory_bytes > merged.memory_swap_bytes:
            raise Conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap too"
            )
        async with live.lock:
            if live.record.state.status in ALIVE and changes:
                limits = personality.limits(merged, config.isolation)
                await self._parts.runtime(live.record.isolation).update(live.id, limits)
            policy = restart if restart is not None and restart.name else config.restart
            self._roster.replace(
                live, config=msgspec.structs.replace(live.record.config, resources=merged, restart=policy)
            )
        self._lifecycle.publish(live, "update")
        return warnings

    async def resize(self, reference: str, rows: int, columns: int) -> None:
        record = self._alive(reference).record
        await self._parts.runtime(record.isolation).resize(record.id, rows, columns)

    def subscribe_wait(self, reference: str, condition: str) -> Awaitable[WaitResult]:
        """Registered when this returns, so that a start right after it cannot be missed."""
        live = self._roster.resolve(reference)
        waiter: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidRequest(f"invalid condition: {condition!r}", hint="not-running, next-exit or removed")
        condition = condition or "not-running"
        state = live.record.state
        if condition == "not-running" and state.status not in ALIVE | {Status.RESTARTING}:
            waiter.set_result(WaitResult(exit_code=state.exit_code, error=state.error))
        else:
            live.waiters.append((condition, waiter))
        return waiter

    async def wait(self, reference: str, condition: str = "not-running") -> WaitResult:
        return await self.subscribe_wait(reference, condition)

    # Streams

    async def attach(
        self, reference: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool = False, stream: bool = True
    ) -> ContainerAttachment:
        live = self._roster.resolve(reference)
        if live.record.state.status is Status.PAUSED:
            raise Conflict("You cannot attach to a paused container, unpause it first")
        runtime = self._parts.runtime(live.record.isolation)
        config = live.record.config
        self._lifecycle.publish(live, "attach")
        return ContainerAttachment(
            live,
            self._parts.storage.container_directory(live.id),
            open_input=(lambda: runtime.open_stdin(live.id)) if stdin and config.open_stdin else None,
            end_input=lambda: runtime.close_stdin(live.id),
            streams=frozenset(([STDOUT] if stdout else []) + ([STDERR] if stderr else [])),
            history=logs,
            follow=stream,
        )

    def logs(
        self,
        reference: str,
        *,
        stdout: bool,
        stderr: bool,
        since_ns: int = 0,
        until_ns: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogRecord]:
        live = self._roster.resolve(reference)
        if not (stdout or stderr):
            raise InvalidRequest("Bad parameters: you must choose at least one stream")
        if live.record.config.log.driver == "none":
            raise Unsupported("configured logging driver does not support reading")
        return read_log(
            live,
            self._parts.storage.container_directory(live.id),
            stdout=stdout,
            stderr=stderr,
            since_ns=since_ns,
            until_ns=until_ns,
            tail=tail,
            follow=follow,
            running=live.record.state.status in ALIVE | {Status.RESTARTING},
        )

    # Many at once

    async def prune(self, filters: Filters) -> tuple[tuple[str, ...], int]:
        """Remove containers that do not run. Answers (ids, bytes freed)."""
        check_keys(filters, ("label", "label!", "until"))
        until = filters.get("until", ())
        before_ns = parse_moment_ns(until[0]) if until else None
        removed, freed = [], 0
        for live in self._roster:
            record = live.record
            if record.state.status not in (Status.CREATED, Status.EXITED, Status.DEAD):
                continue
            if not labels_match(record.config.labels, filters):
                continue
            if before_ns is not None and parse_time(record.created) > before_ns:
                continue
            size = self._parts.storage.scratch_size_bytes(record.id)
            try:
                await self._lifecycle.remove(live, force=False, volumes=False)
            except Conflict:
                # somebody has started it meanwhile
                continue
            removed.append(record.id)
            freed += size
        return tuple(removed), freed

    # Networks of a container

    async def connect(self, network_id: str, reference: str, request: EndpointRequest) -> None:
        """Put a container on one more network, now if it runs and at every later start."""
        live = self._roster.resolve(reference)
        config = live.record.config
        if config.network_mode in ("host", "none") or config.network_mode.startswith("container:"):
            raise Conflict(f"container {live.name} has network mode {config.network_mode}: it cannot join a network")
        request = msgspec.structs.replace(request, network=network_id)
        async with live.lock:
            if any(known.network == network_id for known in live.record.config.endpoints):
                raise Conflict(f"container {live.name} is on that network already")
            check_card(config, len(live.record.config.endpoints) + 1)
            if live.record.state.status in ALIVE:
                await self._connect_running(live, request)
            else:
                self._remember_network(live, request)
        self._events.publish("network", "connect", network_id, {"container": live.id})

    async def _connect_running(self, live: Live, request: EndpointRequest) -> None:
        """All of it or nothing: a container whose guest cannot be plugged in is not on the network."""
        record = live.record
        sandbox = _running_sandbox(record)
        names = (record.name, record.id[:12])
        added = await self._parts.networks.connect(record.id, sandbox, for_card(record, [request]), dns_names=names)
        try:
            self._remember_network(live, request, added)
            self._write_special_files(live)
            await self._tell_runtime(live)
        except BaseException:
            await asyncio.shield(self._take_back(live, request.network))
            raise

    async def _take_back(self, live: Live, network_id: str) -> None:
        """What was begun for a network is undone, each step for itself: the error that is told is the one that led here."""
        with _logged(live):
            self._forget_network(live, network_id)
        with _logged(live):
            await self._parts.networks.disconnect(live.id, network_id, sandbox=_running_sandbox(live.record))
        with _logged(live):
            self._write_special_files(live)
            await self._tell_runtime(live)

    async def disconnect(self, network_id: str, reference: str, *, force: bool = False) -> None:
        """Whatever the runtime says, the container is not on the network any more: nothing leads there."""
        live = self._roster.resolve(reference)
        async with live.lock:
            if not any(known.network == network_id for known in live.record.config.endpoints):
                if force:
                    return
                raise Conflict(f"container {live.name} is not connected to that network")
            alive = live.record.state.status in ALIVE
            if alive:
                await self._parts.networks.disconnect(live.id, network_id, sandbox=_running_sandbox(live.record))
            self._forget_network(live, network_id)
            self._events.publish("network", "disconnect", network_id, {"container": live.id})
            if alive:
                self._write_special_files(live)
                await self._tell_runtime(live)

    # Within

    def _remember_network(self, live: Live, request: EndpointRequest, added: Sequence[Endpoint] = ()) -> None:
        config = live.record.config
        self._roster.replace(
            live,
            config=msgspec.structs.replace(config, endpoints=(*config.endpoints, request)),
            endpoints=(*live.record.endpoints, *added),
        )

    def _forget_network(self, live: Live, network_id: str) -> None:
        config = live.record.config
        kept = tuple(known for known in config.endpoints if known.network != network_id)
        left = tuple(known for known in live.record.endpoints if known.network_id != network_id)
        self._roster.replace(live, config=msgspec.structs.replace(config, endpoints=kept), endpoints=left)

    def _write_special_files(self, live: Live) -> None:
        """Of a running container whose networks have changed."""
        write_special_files(
            live.record,
            self._parts.storage.container_directory(live.id),
            endpoints=live.record.endpoints,
            resolver=self._parts.networks.resolver_address(live.record.endpoints),
        )

    async def _tell_runtime(self, live: Live) -> None:
        """Interfaces or files of a running container have changed; one that ends just now has no use for them."""
        ended_before = live.ended_runs
        try:
            await self._parts.runtime(live.record.isolation).update_network(live.id)
        except (Conflict, NotFound):
            if live.ended_runs == ended_before:
                raise

    def _alive(self, reference: str) -> Live:
        live = self._roster.resolve(reference)
        if live.record.state.status not in ALIVE:
            raise Conflict(f"container {live.id} is not running")
        return live


@contextmanager
def _logged(live: Live) -> Iterator[None]:
    """A failure here is not what the client is told."""
    try:
        yield
    except (SiloError, OSError) as error:
        log.error("container %s: its networks: %s", live.id[:12], error)


def _running_sandbox(record: ContainerRecord) -> Sandbox:
    return Sandbox(id=record.id, netns=Path(f"/proc/{record.state.pid}/ns/net"), user_namespace=True)
