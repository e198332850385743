"""Networks and volumes."""

from __future__ import annotations

from typing import Any

from silo.api.call import NO_CONTENT, Call, Reply, reply_json
from silo.api.decode.create import parse_endpoint
from silo.api.decode.networks import parse_network
from silo.api.decode.shapes import decode_struct, says_something
from silo.api.decode.wire import NetworkConnectBody, NetworkCreateBody, NetworkDisconnectBody, VolumeCreateBody
from silo.api.encode.networks import encode_network
from silo.engine.engine import Engine
from silo.engine.ports import VolumeInfo
from silo.errors import InvalidRequest, Unsupported


class NetworkHandlers:
    def __init__(self, engine: Engine) -> None:
        self._networks = engine.networks

    async def list(self, call: Call) -> Reply:
        return reply_json([encode_network(row, detail=False) for row in self._networks.all(call.filters())])

    async def inspect(self, call: Call) -> Reply:
        network = self._networks.get(call.name)
        return reply_json(encode_network(network, self._networks.containers_on(network.id)))

    async def create(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), NetworkCreateBody)
        made = await self._networks.create(parse_network(body), check_duplicate=body.CheckDuplicate)
        return reply_json({"Id": made.id, "Warning": ""}, 201)

    async def remove(self, call: Call) -> Reply:
        await self._networks.remove(call.name)
        return NO_CONTENT

    async def connect(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), NetworkConnectBody)
        if not body.Container:
            raise InvalidRequest("the container is missing")
        await self._networks.connect(call.name, body.Container, parse_endpoint(call.name, body.EndpointConfig))
        return Reply(200)

    async def disconnect(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), NetworkDisconnectBody)
        if not body.Container:
            raise InvalidRequest("the container is missing")
        await self._networks.disconnect(call.name, body.Container, force=body.Force)
        return Reply(200)

    async def prune(self, call: Call) -> Reply:
        return reply_json({"NetworksDeleted": list(await self._networks.prune(call.filters())) or None})


class VolumeHandlers:
    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.volumes

    async def list(self, call: Call) -> Reply:
        rows = [encode_volume(volume) for volume in self._volumes.all(call.filters())]
        return reply_json({"Volumes": rows, "Warnings": None})

    async def inspect(self, call: Call) -> Reply:
        return reply_json(encode_volume(self._volumes.get(call.name)))

    async def create(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), VolumeCreateBody, empty=True)
        if says_something(body.ClusterVolumeSpec):
            raise Unsupported("cluster volumes are not supported")
        volume = self._volumes.create(body.Name, driver=body.Driver, options=body.DriverOpts, labels=body.Labels)
        return reply_json(encode_volume(volume), 201)

    async def remove(self, call: Call) -> Reply:
        self._volumes.remove(call.name, force=call.flag("force"))
        return NO_CONTENT

    async def prune(self, call: Call) -> Reply:
        filters = call.filters()
        if call.version < (1, 42):
            # Before 1.42 pruning took named volumes, too.
            filters.setdefault("all", ("true",))
        names, freed = await self._volumes.prune(filters)
        return reply_json({"VolumesDeleted": list(names) or None, "SpaceReclaimed": freed})


def encode_volume(volume: VolumeInfo, usage: tuple[int, int] | None = None) -> dict[str, Any]:
    """`docker volume inspect`; `usage`: (bytes, containers)."""
    shown: dict[str, Any] = {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }
    if usage is not None:
        shown["UsageData"] = {"Size": usage[0], "RefCount": usage[1]}
    return shown
