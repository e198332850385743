"""What the engine says of itself; events; disk usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

from silo.api.call import Call, Reply, encode_json, reply_json
from silo.api.encode.containers import encode_summary
from silo.api.encode.images import encode_image_summary
from silo.api.encode.system import encode_event, encode_info, encode_version
from silo.api.handlers.networks import encode_volume
from silo.engine.engine import Engine
from silo.engine.filters import parse_moment_ns
from silo.errors import InvalidRequest
from silo.model.image import Image

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_USAGE_TYPES = ("container", "image", "volume", "build-cache")


class SystemHandlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ping(self, _call: Call) -> Reply:
        return Reply(200, b"OK", "text/plain; charset=utf-8", _NO_CACHE)

    async def version(self, _call: Call) -> Reply:
        return reply_json(encode_version(await self._engine.system.info()))

    async def info(self, _call: Call) -> Reply:
        return reply_json(encode_info(await self._engine.system.info()))

    async def events(self, call: Call) -> None:
        since, until = call.text("since"), call.text("until")
        events = cast(
            Any,
            self._engine.system.events(
                call.filters(),
                since_ns=parse_moment_ns(since) if since else None,
                until_ns=parse_moment_ns(until) if until else None,
            ),
        )
        async with aclosing(events):
            call.begin("application/json")
            async for event in events:
                await call.write(encode_json(encode_event(event)) + b"\n")

    async def disk_usage(self, call: Call) -> Reply:
        types = call.values("type") or list(_USAGE_TYPES)
        for kind in types:
            if kind not in _USAGE_TYPES:
                raise InvalidRequest(f"unknown object type: {kind}", hint=f"one of {', '.join(_USAGE_TYPES)}")
        engine = self._engine
        usage = await engine.system.disk_usage()
        shown: dict[str, Any] = {}
        if "image" in types:
            users: dict[str, int] = {}
            for record in engine.containers.all():
                users[record.image_id] = users.get(record.image_id, 0) + 1
            shown["LayersSize"] = usage.layers_bytes
            images = engine.images.all(intermediate=False)
            shared = _shared_bytes(images)
            shown["Images"] = [
                encode_image_summary(image, containers=users.get(image.id, 0), shared_bytes=shared[image.id])
                for image in images
            ]
        if "container" in types:
            names = {network.id: network.name for network in engine.networks.all()}
            shown["Containers"] = [
                encode_summary(
                    record,
                    image := engine.containers.image_of(record),
                    networks=names,
                    sizes=(
                        usage.scratch_bytes.get(record.id, 0),
                        usage.scratch_bytes.get(record.id, 0) + (image.size_bytes if image else 0),
                    ),
                )
                for record in engine.containers.all()
            ]
        if "volume" in types:
            shown["Volumes"] = [
                encode_volume(volume, usage.volumes.get(volume.name, (0, 0))) for volume in engine.volumes.all()
            ]
        if "build-cache" in types:
            shown["BuildCache"] = []
        return reply_json(shown)


def _shared_bytes(images: Sequence[Image]) -> dict[str, int]:
    """By image, how much of it others have as well."""
    users = Counter(path for image in images for path in set(image.layer_paths))
    return {
        image.id: sum(size for path, size in zip(image.layer_paths, image.layer_sizes, strict=False) if users[path] > 1)
        for image in images
    }
