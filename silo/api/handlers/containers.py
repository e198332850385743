"""Containers: create, look at, change, remove."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from silo.api.call import NO_CONTENT, Call, Reply, encode_json, reply_json
from silo.api.decode.create import parse_create
from silo.api.decode.resources import parse_resources, parse_restart
from silo.api.decode.shapes import decode_struct
from silo.api.decode.wire import UpdateBody
from silo.api.encode.containers import encode_container, encode_summary
from silo.api.handlers.selection import select_containers
from silo.engine.engine import Engine
from silo.errors import InvalidRequest


class ContainerHandlers:
    """`/containers` without its streams."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers
        self._data_root: Path | None = None

    def network_names(self) -> dict[str, str]:
        return {network.id: network.name for network in self._engine.networks.all()}

    async def create(self, call: Call) -> Reply:
        config = parse_create(
            await call.body(), platform=call.text("platform"), default_isolation=self._engine.default_isolation
        )
        created = await self._containers.create(config, name=call.text("name"))
        return reply_json({"Id": created.id, "Warnings": list(created.warnings)}, 201)

    async def list(self, call: Call) -> Reply:
        records = select_containers(
            self._engine, call.filters(), everything=call.flag("all"), limit=call.number("limit") or 0
        )
        names = self.network_names()
        with_sizes = call.flag("size")
        return reply_json(
            [
                encode_summary(
                    record,
                    self._containers.image_of(record),
                    networks=names,
                    sizes=self._containers.sizes(record.id) if with_sizes else None,
                )
                for record in records
            ]
        )

    async def inspect(self, call: Call) -> Reply:
        record = self._containers.resolve(call.name)
        if self._data_root is None:
            self._data_root = (await self._engine.system.info()).data_root
        return reply_json(
            encode_container(
                record,
                self._containers.image_of(record),
                directory=self._data_root / "containers" / record.id,
                networks=self.network_names(),
                exec_ids=self._engine.execs.of_container(record.id),
                sizes=self._containers.sizes(record.id) if call.flag("size") else None,
            )
        )

    async def start(self, call: Call) -> Reply:
        if (await call.body()).strip() not in (b"", b"{}", b"null"):
            raise InvalidRequest("starting a container with a HostConfig is not possible", hint="create it with one")
        if call.text("checkpoint"):
            raise InvalidRequest("--checkpoint is not supported")
        await self._containers.start(call.name)
        return NO_CONTENT

    async def stop(self, call: Call) -> Reply:
        await self._containers.stop(call.name, call.number("t"), call.text("signal"))
        return NO_CONTENT

    async def restart(self, call: Call) -> Reply:
        await self._containers.restart(call.name, call.number("t"), call.text("signal"))
        return NO_CONTENT

    async def kill(self, call: Call) -> Reply:
        await self._containers.kill(call.name, call.text("signal") or "KILL")
        return NO_CONTENT

    async def pause(self, call: Call) -> Reply:
        await self._containers.pause(call.name)
        return NO_CONTENT

    async def unpause(self, call: Call) -> Reply:
        await self._containers.unpause(call.name)
        return NO_CONTENT

    async def remove(self, call: Call) -> Reply:
        await self._containers.remove(
            call.name, force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link")
        )
        return NO_CONTENT

    async def rename(self, call: Call) -> Reply:
        await self._containers.rename(call.name, call.text("name"))
        return NO_CONTENT

    async def update(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), UpdateBody)
        restart = parse_restart(body.RestartPolicy) if body.RestartPolicy.Name else None
        warnings = await self._containers.update(call.name, parse_resources(body), restart)
        return reply_json({"Warnings": list(warnings) or None})

    async def resize(self, call: Call) -> Reply:
        rows, columns = parse_size(call)
        await self._containers.resize(call.name, rows, columns)
        return Reply(200)

    async def wait(self, call: Call) -> None:
        """The head goes out at once: the client starts the container only when it has seen it."""
        condition = call.text("condition")
        waiter = self._containers.subscribe_wait(call.name, condition)
        call.begin("application/json")
        result = await waiter
        answer: dict[str, Any] = {"StatusCode": result.exit_code}
        # Whoever waits for an end that has yet to come also starts the container, and is told there why it did not start.
        if result.error and condition in ("", "not-running"):
            answer["Error"] = {"Message": result.error}
        await call.write(encode_json(answer) + b"\n")

    async def processes(self, call: Call) -> Reply:
        table = await self._containers.processes(call.name, call.text("ps_args", "-ef"))
        return reply_json({"Titles": list(table.titles), "Processes": [list(row) for row in table.rows]})

    async def changes(self, call: Call) -> Reply:
        changes = await self._engine.files.changes(call.name)
        return reply_json([{"Path": change.path, "Kind": change.kind} for change in changes])

    async def prune(self, call: Call) -> Reply:
        deleted, freed = await self._containers.prune(call.filters())
        return reply_json({"ContainersDeleted": list(deleted) or None, "SpaceReclaimed": freed})


def parse_size(call: Call) -> tuple[int, int]:
    """(rows, columns) of `resize`. Raises InvalidRequest."""
    found: Mapping[str, int | None] = {key: call.number(key) for key in ("h", "w")}
    rows, columns = found["h"], found["w"]
    if rows is None or columns is None or not (0 <= rows < 65536 and 0 <= columns < 65536):
        raise InvalidRequest("invalid resize height or width", hint="h and w, 0 to 65535")
    return rows, columns
