"""`docker cp` and `docker export`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from silo.api.call import TAR, Call, Reply, encode_json
from silo.engine.engine import Engine
from silo.errors import InvalidRequest

_STAT = "X-Docker-Container-Path-Stat"


class ArchiveHandlers:
    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers
        self._files = engine.files

    async def stat(self, call: Call) -> Reply:
        stat = await self._files.stat_archive(call.name, _path(call))
        return Reply(200, headers={_STAT: _header(stat)})

    async def read(self, call: Call) -> None:
        stat, chunks = await self._files.read_archive(call.name, _path(call))
        await send_tar(call, chunks, headers={_STAT: _header(stat)})

    async def write(self, call: Call) -> Reply:
        await self._files.write_archive(
            call.name,
            _path(call),
            call.chunks(),
            no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
            copy_uid_gid=call.flag("copyUIDGID"),
        )
        return Reply(200)

    async def export(self, call: Call) -> None:
        record = self._containers.resolve(call.name)
        await send_tar(call, self._files.export(record.id))


async def send_tar(call: Call, chunks: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> None:
    """The head goes out with the first piece, so that what fails before it is still a status."""
    begun = False
    async with aclosing(cast(Any, chunks)) as pieces:
        async for piece in pieces:
            if not begun:
                call.begin(TAR, headers=headers)
                begun = True
            await call.write(piece)
    if not begun:
        call.begin(TAR, headers=headers)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidRequest("the path is missing", hint="path=/in/the/container")
    if "\0" in path:
        raise InvalidRequest("a path cannot hold a zero byte")
    return path


def _header(stat: dict[str, object]) -> str:
    return base64.b64encode(encode_json(stat)).decode()
