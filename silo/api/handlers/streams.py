"""Containers' streams: attach, logs, statistics."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any, cast

from silo.api.call import MULTIPLEXED_STREAM, RAW_STREAM, Call, Reply, encode_json, reply_json
from silo.api.encode.statistics import CpuSample, encode_statistics, host_cpu_ns
from silo.api.framing import frame, parse_detach_keys
from silo.api.handlers.attaching import couple
from silo.engine.engine import Engine
from silo.engine.filters import parse_moment_ns
from silo.engine.states import ALIVE
from silo.errors import InvalidRequest, NotFound, SiloError
from silo.model.clock import format_time

STATISTICS_INTERVAL_S = 1.0


class StreamHandlers:
    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers

    async def attach(self, call: Call) -> None:
        """Registered with the engine before the client sees the head, so no output is lost."""
        record = self._containers.resolve(call.name)
        keys = parse_detach_keys(call.text("detachKeys"))
        stdin, stdout, stderr = call.flag("stdin"), call.flag("stdout"), call.flag("stderr")
        attachment = await self._containers.attach(
            record.id, stdin=stdin, stdout=stdout, stderr=stderr, logs=call.flag("logs"), stream=call.flag("stream")
        )
        try:
            client = call.hijack(multiplexed=not attachment.terminal)
        except BaseException:
            attachment.close()
            raise
        await couple(call, attachment, client, stdin=stdin, detach_keys=keys, streams=(stdout, stderr))

    async def logs(self, call: Call) -> None:
        record = self._containers.resolve(call.name)
        since, until, tail = call.text("since"), call.text("until"), call.text("tail")
        records = cast(
            Any,
            self._containers.logs(
                record.id,
                stdout=call.flag("stdout"),
                stderr=call.flag("stderr"),
                since_ns=parse_moment_ns(since) if since and since != "0" else 0,
                until_ns=parse_moment_ns(until) if until and until != "0" else None,
                tail=_tail(tail),
                follow=call.flag("follow"),
            ),
        )
        terminal = record.config.tty
        stamps = _Stamper() if call.flag("timestamps") else None
        framed = not terminal and call.version >= (1, 42)
        async with aclosing(records):
            call.begin(MULTIPLEXED_STREAM if framed else RAW_STREAM)
            async for piece in records:
                payload = stamps.stamp(piece.stream, piece.time_ns, piece.payload) if stamps else piece.payload
                await call.write(payload if terminal else frame(piece.stream, payload))

    async def statistics(self, call: Call) -> Reply | None:
        record = self._containers.resolve(call.name)
        if not call.flag("stream", default=True):
            before = None
            if not call.flag("one-shot") and record.state.status in ALIVE:
                before, _ = await self._sample(record.id, None)
                await asyncio.sleep(STATISTICS_INTERVAL_S)
            _, shown = await self._sample(record.id, before)
            return reply_json(shown)
        call.begin("application/json")
        previous: CpuSample | None = None
        while True:
            try:
                previous, shown = await self._sample(record.id, previous)
            except NotFound:
                return None
            await call.write(encode_json(shown) + b"\n")
            await asyncio.sleep(STATISTICS_INTERVAL_S)

    async def _sample(self, container_id: str, before: CpuSample | None) -> tuple[CpuSample, dict[str, Any]]:
        record = self._containers.resolve(container_id)
        try:
            sample, networks = await self._containers.statistics(container_id)
        except NotFound:
            raise
        except SiloError:
            if self._containers.resolve(container_id).state.status in ALIVE:
                raise
            # It ended in between.
            sample, networks = await self._containers.statistics(container_id)
        now = CpuSample(statistics=sample, host_ns=host_cpu_ns(), time_ns=time.time_ns())
        return now, encode_statistics(record, now, before, networks)


def _tail(text: str) -> int | None:
    if text in ("", "all"):
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    if text.startswith("-") and text[1:].isdigit():
        return None
    raise InvalidRequest(f"invalid value for tail: {text!r}", hint="a number of lines, or all")


class _Stamper:
    """Puts the time before every line; a line that comes in several pieces gets one."""

    def __init__(self) -> None:
        self._at_start: dict[int, bool] = {}

    def stamp(self, stream: int, time_ns: int, payload: bytes) -> bytes:
        prefix = format_time(time_ns).encode() + b" "
        at_start = self._at_start.get(stream, True)
        lines = (
            payload.splitlines(keepends=True) if b"\r" not in payload else payload.replace(b"\n", b"\n\0").split(b"\0")
        )
        pieces = []
        for line in lines:
            if line:
                pieces.append(prefix + line if at_start else line)
                at_start = line.endswith(b"\n")
        self._at_start[stream] = at_start
        return b"".join(pieces)
