"""Health probes: run the image's or the user's test by exec, count failures, tell."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress

import msgspec

from silo.engine.attachments import ExecAttachment
from silo.engine.events import EventBus
from silo.engine.parts import Parts
from silo.engine.planning import hostname_of
from silo.engine.ports import ExecRequest
from silo.engine.roster import Live, Roster
from silo.errors import SiloError
from silo.model.clock import now
from silo.model.container import ContainerConfig, Health, HealthResult, Status
from silo.model.image import Healthcheck

log = logging.getLogger(__name__)

KEPT_RESULTS = 5
OUTPUT_LIMIT_BYTES = 4096
PROBE_FAILED = -1
"""Docker's exit code for a probe that could not run or took too long."""


class Prober:
    """One task a running container that has a probe."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events

    def first(self, config: ContainerConfig) -> Health | None:
        """The health of a container that has just started."""
        return Health(status="starting") if _probes(config.healthcheck) else None

    def begin(self, live: Live) -> None:
        check = live.record.config.healthcheck
        if check is not None and _probes(check):
            task = asyncio.create_task(self._watch(live, check))
            live.tasks.add(task)
            task.add_done_callback(live.tasks.discard)

    async def _watch(self, live: Live, check: Healthcheck) -> None:
        loop = asyncio.get_running_loop()
        grace_ends = loop.time() + check.start_period_s
        while True:
            starting = loop.time() < grace_ends and _status(live) == "starting"
            await asyncio.sleep(min(check.interval_s, check.start_interval_s) if starting else check.interval_s)
            if live.record.state.status is not Status.RUNNING:
                continue
            result = await self._probe(live, check)
            in_grace = loop.time() < grace_ends
            self._record(live, check, result, in_grace=in_grace)

    async def _probe(self, live: Live, check: Healthcheck) -> HealthResult:
        start = now()
        try:
            code, output = await self._execute(live, check)
        except TimeoutError:
            code, output = PROBE_FAILED, f"Health check exceeded timeout ({check.timeout_s:g}s)"
        except SiloError as error:
            code, output = PROBE_FAILED, str(error)
        return HealthResult(start=start, end=now(), exit_code=code, output=output)

    async def _execute(self, live: Live, check: Healthcheck) -> tuple[int, str]:
        record = live.record
        image = self._parts.image_of(record)
        personality = self._parts.personality(record.personality)
        request = ExecRequest(args=personality.health_command(check.test, image))
        program = personality.plan_exec(record.config, image, request, hostname=hostname_of(record))
        running = await self._parts.runtime(record.isolation).exec(
            record.id, program, stdin=False, stdout=True, stderr=True
        )
        attachment = ExecAttachment(running)
        try:
            async with asyncio.timeout(check.timeout_s):
                output = b""
                async for _stream, data in attachment.output():
                    output = (output + data)[:OUTPUT_LIMIT_BYTES]
                return await running.wait(), output.decode(errors="replace")
        except TimeoutError:
            with suppress(SiloError):
                await running.signal(signal.SIGKILL)
            raise
        finally:
            attachment.close()

    def _record(self, live: Live, check: Healthcheck, result: HealthResult, *, in_grace: bool) -> None:
        before = live.record.state.health or Health(status="starting")
        failed = result.exit_code != 0
        streak = before.failing_streak + 1 if failed and not (in_grace and before.status == "starting") else 0
        status = before.status
        if not failed:
            status = "healthy"
        elif streak >= max(check.retries, 1):
            status = "unhealthy"
        kept = (*before.log, result)[-KEPT_RESULTS:]
        self._roster.set_state(live, health=Health(status=status, failing_streak=streak, log=kept))
        if status != before.status:
            record = live.record
            attributes = record.config.labels | {"image": record.config.image, "name": record.name}
            self._events.publish("container", f"health_status: {status}", record.id, attributes)


def _probes(check: Healthcheck | None) -> bool:
    return check is not None and bool(check.test) and check.test[0] != "NONE"


def _status(live: Live) -> str:
    health = live.record.state.health
    return health.status if health is not None else ""


def with_defaults(check: Healthcheck | None) -> Healthcheck | None:
    """Zero durations mean Docker's defaults."""
    if check is None:
        return None
    return msgspec.structs.replace(
        check,
        interval_s=check.interval_s or 30.0,
        timeout_s=check.timeout_s or 30.0,
        start_interval_s=check.start_interval_s or 5.0,
        retries=check.retries or 3,
    )
