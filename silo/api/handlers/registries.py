"""Silo's own extension to the API: the registry of Windows images, containers and hives, as text."""

from __future__ import annotations

from silo.api.call import Call, Reply
from silo.engine.engine import Engine
from silo.engine.registry import MAXIMUM_FILE_BYTES, RegistryObject
from silo.errors import InvalidRequest

_TEXT = "text/plain; charset=utf-8"


class RegistryHandlers:
    """`/silo/v1/registry`.

    GET names an image or a container: `object`, and `type` (container, image) where one is meant. POST brings a hive instead: its
    bytes are the body, `file` its name; of two, for a comparison, `base` is the name of the other, whose `baseSize` bytes come
    first. `key` is as `HKLM\\Software`, empty for all.
    """

    def __init__(self, engine: Engine) -> None:
        self._registries = engine.registries

    async def query(self, call: Call) -> Reply:
        """?value=NAME, or default=1 for the default value; recursive=1."""
        value = "" if call.flag("default") else call.text("value") or None
        shown, _ = await _objects(call)
        return _reply(
            await self._registries.query(shown, call.text("key"), value=value, recursive=call.flag("recursive"))
        )

    async def export(self, call: Call) -> Reply:
        shown, _ = await _objects(call)
        return _reply(await self._registries.export(shown, call.text("key")))

    async def diff(self, call: Call) -> Reply:
        """?base=NAME: what to compare with."""
        shown, base = await _objects(call)
        return _reply(await self._registries.diff(shown, call.text("key"), base=base))


async def _objects(call: Call) -> tuple[RegistryObject, RegistryObject | None]:
    base = call.text("base")
    if call.method == "GET":
        name = call.text("object")
        if not name:
            raise InvalidRequest("the name of an image or a container is missing (object)")
        return RegistryObject(name=name, kind=call.text("type")), RegistryObject(name=base) if base else None
    name = call.text("file")
    if not name:
        raise InvalidRequest("the name of the hive is missing (file)")
    data = await call.body(2 * MAXIMUM_FILE_BYTES)
    if not base:
        return RegistryObject(name=name, hive=data), None
    size = call.number("baseSize") or 0
    if not 0 < size <= len(data):
        raise InvalidRequest(f"baseSize {size} does not fit a body of {len(data)} bytes")
    return RegistryObject(name=name, hive=data[size:]), RegistryObject(name=base, hive=data[:size])


def _reply(text: str) -> Reply:
    return Reply(200, text.encode("utf-8", "replace"), _TEXT)
