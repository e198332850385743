"""`silo registry`: the registry of a Windows image or container, or of a hive file, shown to a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from silo.engine.files import ContainerFiles
from silo.engine.parts import Parts
from silo.engine.ports import RegistrySource, RegistryViewer
from silo.engine.roster import Roster
from silo.errors import InvalidRequest, NotFound
from silo.model.container import ContainerConfig, Status
from silo.model.image import Image
from silo.model.platform import PersonalityName
from silo.model.windows_paths import PREFIX, REGISTRY_FILES

MAXIMUM_FILE_BYTES = 64 << 20
"""Of one registry file or hive."""

_Below = Callable[[], Awaitable[RegistrySource]]
_PATHS = {name: f"{PREFIX}/{name}" for name in REGISTRY_FILES}


class RegistryObject(msgspec.Struct, frozen=True, kw_only=True):
    """What to look at. With `hive`, the bytes of a file called `name`; else the container or image that `name` names, of the
    `kind` that is wanted (container, image, or empty for either, containers first)."""

    name: str
    kind: str = ""
    hive: bytes | None = None


class Registries:
    """Everything raises NotFound (object, key), InvalidRequest (a Linux one, a damaged registry)."""

    def __init__(self, parts: Parts, roster: Roster, files: ContainerFiles, viewer: RegistryViewer) -> None:
        self._parts = parts
        self._roster = roster
        self._files = files
        self._viewer = viewer

    async def query(self, shown: RegistryObject, key: str, *, value: str | None = None, recursive: bool = False) -> str:
        """As `reg query` prints it."""
        source, _ = await self._open(shown)
        return await asyncio.to_thread(self._viewer.query, source, key, value=value, recursive=recursive)

    async def export(self, shown: RegistryObject, key: str) -> str:
        """As `reg export` writes it."""
        source, _ = await self._open(shown)
        return await asyncio.to_thread(self._viewer.export, source, key)

    async def diff(self, shown: RegistryObject, key: str, *, base: RegistryObject | None = None) -> str:
        """What was changed, in the form of `export`: in a container since its image, in an image since its lowest layer, or
        since `base`. A hive without a base is shown as the change that it is."""
        source, below = await self._open(shown)
        if base is not None:
            before, _ = await self._open(base)
        elif below is not None:
            before = await below()
        else:
            return await asyncio.to_thread(self._viewer.export, source, key)
        return await asyncio.to_thread(self._viewer.diff, before, source, key)

    # Within

    async def _open(self, shown: RegistryObject) -> tuple[RegistrySource, _Below | None]:
        """The registry, and what it stands on."""
        if shown.hive is not None:
            return RegistrySource(files={shown.name: shown.hive}, hive=shown.name or "HIVE"), None
        if shown.kind not in ("", "container", "image"):
            raise InvalidRequest(f"{shown.kind!r} has no registry", hint="type container or image")
        if shown.kind != "image":
            try:
                container = self._roster.resolve(shown.name)
            except NotFound:
                if shown.kind:
                    raise
            else:
                return await self._open_container(container.id)
        return await self._open_image(shown.name, either=not shown.kind)

    async def _open_container(self, container_id: str) -> tuple[RegistrySource, _Below]:
        record = self._roster.resolve(container_id).record
        _check_windows(record.personality, f"the container {record.name}")
        image = self._parts.image_of(record)
        if record.state.status is Status.CREATED:
            # its user's registry comes at the first start
            return await self._read_image(image, record.config), lambda: self._read_image(image, record.config)
        found = await self._files.contents(record.id, tuple(_PATHS.values()), limit_bytes=MAXIMUM_FILE_BYTES)
        return _source(_PATHS, found, record.name), lambda: self._read_image(image, record.config)

    async def _open_image(self, name: str, *, either: bool) -> tuple[RegistrySource, _Below]:
        image = self._parts.images.find(name)
        if image is None:
            raise NotFound(f"no such {'container or ' if either else ''}image: {name}")
        _check_windows(image.platform.os, f"the image {name}")
        base = msgspec.structs.replace(image, layers=image.layers[:1], layer_paths=image.layer_paths[:1])
        config = ContainerConfig(image=name)
        return await self._read_image(image, config), lambda: self._read_image(base, config)

    async def _read_image(self, image: Image, config: ContainerConfig) -> RegistrySource:
        """With HKEY_CURRENT_USER of the user that a container with this configuration has."""
        owner = self._parts.personality(PersonalityName.WINDOWS).scratch_owner(config, image)
        copied = {target: source for source, target in owner.copies} if owner is not None else {}
        wanted = (*_PATHS.values(), *copied.values())
        found = await self._parts.storage.image_files(image, wanted, limit_bytes=MAXIMUM_FILE_BYTES)
        paths = {name: copied[path] if copied.get(path, "") in found else path for name, path in _PATHS.items()}
        return _source(paths, found, config.image)


def _source(paths: Mapping[str, str], found: Mapping[str, bytes], name: str) -> RegistrySource:
    files = {file: found[path] for file, path in paths.items() if path in found}
    if not files:
        raise NotFound(f"{name} has no registry", details=f"none of {', '.join(paths.values())}")
    return RegistrySource(files=files)


def _check_windows(personality: str, what: str) -> None:
    if personality != PersonalityName.WINDOWS:
        raise InvalidRequest(f"{what} is not a Windows one: it has no registry")
