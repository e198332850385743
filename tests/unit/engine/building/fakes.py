"""A store of images and the files of builds in memory: enough to build without a disk, a container or root."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import itertools
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from silo.engine.building.build import Build
from silo.engine.building.failure import failed_command
from silo.engine.building.images import ImageFinder
from silo.engine.building.mounts import CacheLocks
from silo.engine.building.request import BuildRequest
from silo.engine.building.running import RunStep
from silo.engine.events import EventBus
from silo.engine.ports import PullRequest
from silo.errors import ImageNotFound, NotFound
from silo.linux import LinuxPersonality
from silo.model.build import CopyTarget, SourceItem, SourceKind
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.platform import PersonalityName, Platform
from silo.windows.personality import WindowsPersonality

LINUX = Platform(os="linux", architecture="amd64")
WINDOWS = Platform(os="windows", architecture="amd64")


class MemoryStore:
    """silo.engine.building.ports.StepStore."""

    def __init__(self, *images: Image) -> None:
        self.images = {image.id: image for image in images}
        self.pulls: list[PullRequest] = []
        self.remote: dict[str, Image] = {}
        self._numbers = itertools.count(1)

    def find(self, reference: str, *, platform: str = "") -> Image | None:
        wanted = platform.partition("/")[0]
        found = [
            image
            for image in self.images.values()
            if reference == image.id or f"{reference}:latest" in image.tags or reference in image.tags
        ]
        return next((image for image in found if wanted in ("", image.platform.os)), None)

    def get(self, reference: str, *, platform: str = "") -> Image:
        found = self.find(reference, platform=platform)
        if found is None:
            raise ImageNotFound(f"No such image: {reference}")
        return found

    def all(self) -> tuple[Image, ...]:
        return tuple(self.images.values())

    def children(self, image_id: str) -> tuple[Image, ...]:
        return tuple(image for image in self.images.values() if image.parent == image_id)

    def check_tag(self, reference: str) -> None: ...

    async def pull(self, request: PullRequest, progress: Any) -> Image:
        self.pulls.append(request)
        if request.reference not in self.remote:
            raise ImageNotFound(f"pull access denied for {request.reference}")
        image = self.remote[request.reference]
        self.images[image.id] = image
        return image

    async def empty(self, platform: str) -> Image:
        image = Image(
            id="sha256:empty", platform=WINDOWS if platform.startswith("windows") else LINUX, config=ImageConfig()
        )
        return self.images.setdefault(image.id, image)

    async def commit(
        self,
        base: Image,
        layer: AsyncIterator[bytes] | None,
        *,
        reference: str,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> Image:
        layers = base.layers
        if layer is not None:
            data = b"".join([chunk async for chunk in layer])
            layers = (*layers, "sha256:" + hashlib.sha256(data).hexdigest())
        return self._add(base, layers, config, msgspec.structs.replace(entry, empty_layer=layer is None))

    async def extend(self, base: Image, source: Image, *, config: ImageConfig, entry: HistoryEntry) -> Image:
        count = len(base.layers) + (not entry.empty_layer)
        return self._add(base, (*base.layers, *source.layers[len(base.layers) : count]), config, entry)

    def _add(self, base: Image, layers: tuple[str, ...], config: ImageConfig, entry: HistoryEntry) -> Image:
        image = Image(
            id=f"sha256:{next(self._numbers):064x}",
            platform=base.platform,
            config=config,
            created=entry.created,
            author=entry.author,
            layers=layers,
            history=(*base.history, entry),
            parent=base.id,
        )
        self.images[image.id] = image
        return image

    def tag(self, reference: str, new_reference: str) -> None:
        image = self.images[reference]
        self.images[reference] = msgspec.structs.replace(image, tags=(*image.tags, new_reference))


class MemoryTree:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.directory = Path("/memory")

    async def read(self, path: str, *, limit_bytes: int) -> bytes:
        if path not in self.files:
            raise NotFound(path)
        return self.files[path]

    async def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.files.pop(path, None)

    async def find(self, pattern: str, *, archives: bool, excluded: Any = None) -> tuple[SourceItem, ...]:
        pattern = pattern.strip("/").removeprefix("./")
        if pattern in (".", ""):
            return (self._item("", SourceKind.DIRECTORY, repr(sorted(self.files.items()))),)
        names = sorted(name for name in self.files if fnmatch.fnmatchcase(name, pattern))
        if not names and not any(mark in pattern for mark in "*?["):
            raise NotFound(pattern)
        return tuple(self._item(name, SourceKind.FILE, repr((name, self.files[name]))) for name in names)

    def _item(self, path: str, kind: SourceKind, content: str) -> SourceItem:
        digest = hashlib.sha256(content.encode()).hexdigest()
        return SourceItem(path=path, found=path, name=path.rpartition("/")[2], kind=kind, digest=digest)


class MemoryChange:
    def __init__(self) -> None:
        self.done: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def is_directory(self, path: str) -> bool:
        return path in ("/", "/etc")

    async def find_owner(self, words: str) -> tuple[int, int]:
        return (7, 7)

    async def copy(self, tree: MemoryTree, item: SourceItem, target: CopyTarget, *, excluded: Any = None) -> None:
        mode = f" {target.mode(0o644, is_directory=False):o}" if target.mode is not None else ""
        into = "/" if target.into else ""
        self.done.append(f"{item.path or '.'} -> {target.path}{into} {target.owner}{mode}")

    async def make_directory(self, path: str, owner: tuple[int, int]) -> bool:
        self.done.append(f"mkdir {path} {owner}")
        return path != "/etc"

    async def layer(self) -> AsyncIterator[bytes]:
        yield repr(self.done).encode()


class MemoryFiles:
    """silo.engine.building.ports.BuildFiles. `done` is what was copied; `open` counts what has not been given back."""

    def __init__(self) -> None:
        self.changes: list[MemoryChange] = []
        self.web: dict[str, tuple[str, bytes]] = {}
        self.open = 0

    @property
    def done(self) -> list[str]:
        return [line for change in self.changes for line in change.done]

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[MemoryTree]:
        data = b"".join([chunk async for chunk in chunks])
        files = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                content = archive.extractfile(member)
                files[member.name] = content.read() if content else b""
        async with self._given(MemoryTree(files)) as tree:
            yield tree

    @asynccontextmanager
    async def write(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> AsyncIterator[MemoryTree]:
        async with self._given(MemoryTree(files)) as tree:
            yield tree

    @asynccontextmanager
    async def fetch(self, url: str, *, checksum: str = "") -> AsyncIterator[tuple[MemoryTree, str, str]]:
        name, data = self.web[url]
        async with self._given(MemoryTree({name or "download": data})) as tree:
            yield tree, name, "application/octet-stream"

    @asynccontextmanager
    async def look(self, image: Image) -> AsyncIterator[MemoryTree]:
        async with self._given(MemoryTree({"out/app": image.id.encode()})) as tree:
            yield tree

    @asynccontextmanager
    async def take(self, tree: MemoryTree, item: SourceItem) -> AsyncIterator[MemoryTree]:
        async with self._given(tree) as taken:
            yield taken

    @asynccontextmanager
    async def change(self, image: Image) -> AsyncIterator[MemoryChange]:
        change = MemoryChange()
        self.changes.append(change)
        self.open += 1
        try:
            yield change
        finally:
            self.open -= 1

    @asynccontextmanager
    async def _given(self, tree: MemoryTree) -> AsyncIterator[MemoryTree]:
        self.open += 1
        try:
            yield tree
        finally:
            self.open -= 1


class PlayedRunner:
    """`exit N` fails with N; everything else is a layer of its own."""

    def __init__(self, store: MemoryStore, output: Said) -> None:
        self._store = store
        self._output = output
        self.steps: list[RunStep] = []

    async def run(self, step: RunStep, image: Image, config: ImageConfig, entry: HistoryEntry) -> Image:
        self.steps.append(step)
        await self._output.say(" ---> Running in 0123456789ab\n")
        if step.command.args[-1].startswith("exit "):
            raise failed_command(step.shown, int(step.command.args[-1].split()[1]))

        async def layer() -> AsyncIterator[bytes]:
            yield step.shown.encode()

        return await self._store.commit(image, layer(), reference="", config=config, entry=entry)


class Said:
    """silo.engine.building.ports.BuildOutput that remembers."""

    def __init__(self) -> None:
        self.text = ""
        self.images: list[str] = []

    async def say(self, text: str) -> None:
        self.text += text

    async def tell_image(self, image_id: str) -> None:
        self.images.append(image_id)

    def report(self, item: str, status: str, done: int, total: int) -> None: ...


def base(name: str = "bb", *, platform: Platform = LINUX, **config: Any) -> Image:
    """An image to build upon."""
    digest = hashlib.sha256(f"{name}{platform}".encode()).hexdigest()
    return Image(
        id=f"sha256:{digest}",
        platform=platform,
        config=ImageConfig(**config),
        layers=("sha256:" + digest,),
        history=(HistoryEntry(created_by=name),),
        tags=(f"{name}:latest",),
    )


def context(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Site:
    """One store and its builds, one after another."""

    def __init__(self, *images: Image) -> None:
        self.store = MemoryStore(*(images or (base(), base("win", platform=WINDOWS))))
        self.files = MemoryFiles()
        self.output = Said()
        self.runner = PlayedRunner(self.store, self.output)

    async def build(self, text: str, files: Mapping[str, str] | None = None, **request: Any) -> Image:
        self.output.text = ""
        asked = BuildRequest(**request)
        data = context({"Dockerfile": text, **(files or {})})

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        self.runner.steps.clear()
        self.files.changes.clear()
        build = Build(
            store=self.store,  # type: ignore[arg-type]
            files=self.files,  # type: ignore[arg-type]
            personalities={PersonalityName.LINUX: LinuxPersonality(), PersonalityName.WINDOWS: WindowsPersonality()},
            runner=self.runner,  # type: ignore[arg-type]
            finder=ImageFinder(self.store, asked, self.output, EventBus(), build_base=self._build_base),  # type: ignore[arg-type]
            request=asked,
            output=self.output,
            locks=CacheLocks(),
        )
        try:
            return await build.run(chunks())
        finally:
            assert self.files.open == 0, "something of a build was not given back"

    async def _build_base(self, _progress: Any) -> Image:
        image = base("windows", platform=WINDOWS)
        self.store.images[image.id] = image
        return image
