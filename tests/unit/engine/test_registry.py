"""`silo registry`: whose registry is read, and what it is compared with."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from silo.engine.ports import RegistrySource
from silo.engine.registry import Registries, RegistryObject
from silo.engine.single_files import read_only_file
from silo.errors import InvalidRequest, NotFound
from silo.model.container import ContainerConfig, Status
from silo.model.image import Image, ImageConfig
from silo.model.platform import PersonalityName, Platform
from silo.windows.personality import WindowsPersonality
from tests.unit.engine.fakes import Bench
from tests.unit.engine.test_lifecycle import create, scenario

BASE, TOP = Path("/base"), Path("/top")
FILES: dict[Path, dict[str, bytes]] = {
    BASE: {
        "/silo/prefix/system.reg": b"base",
        "/silo/prefix/user.reg": b"admin",
        "/silo/users/ContainerUser/user.reg": b"other",
    },
    TOP: {"/silo/prefix/system.reg": b"top", "/silo/users/ContainerUser/user.reg": b"user"},
}


class Viewer:
    """Answers what it was asked."""

    def query(self, source: RegistrySource, key: str, *, value: str | None, recursive: bool) -> str:
        return f"query {shown(source)} {key} {value} {recursive}"

    def export(self, source: RegistrySource, key: str) -> str:
        return f"export {shown(source)} {key}"

    def diff(self, before: RegistrySource, after: RegistrySource, key: str) -> str:
        return f"diff {shown(before)} {shown(after)} {key}"


def shown(source: RegistrySource) -> str:
    return "+".join([source.hive, *(data.decode() for data in source.files.values())]).lstrip("+")


class Store:
    """Images, their files, and containers."""

    def __init__(self) -> None:
        config = ImageConfig()
        self.images = {
            "windows": Image(
                id="1", platform=Platform(os="windows", architecture="amd64"), config=config, layer_paths=(BASE,)
            ),
            "app": Image(
                id="2", platform=Platform(os="windows", architecture="amd64"), config=config, layer_paths=(BASE, TOP)
            ),
            "alpine": Image(id="3", platform=Platform(os="linux", architecture="amd64"), config=config),
        }
        self.containers: dict[str, SimpleNamespace] = {}
        self.read: list[str] = []

    def find(self, name: str) -> Image | None:
        return self.images.get(name)

    def image_of(self, record: Any) -> Image:
        return self.images[record.config.image]

    def personality(self, name: PersonalityName) -> WindowsPersonality:
        assert name is PersonalityName.WINDOWS
        return WindowsPersonality()

    async def image_files(self, image: Image, paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for layer in image.layer_paths:
            found |= {path: data for path, data in FILES[layer].items() if path in paths}
        return found

    def resolve(self, name: str) -> SimpleNamespace:
        if name not in self.containers:
            raise NotFound(f"No such container: {name}")
        return self.containers[name]

    async def contents(self, name: str, paths: Sequence[str], *, limit_bytes: int) -> Mapping[str, bytes]:
        self.read.append(name)
        return {path: b"now" for path in paths if path.endswith("/system.reg")}

    def add(self, name: str, image: str, status: Status, *, user: str = "", windows: bool = True) -> None:
        record = SimpleNamespace(
            id=name,
            name=name,
            config=ContainerConfig(image=image, user=user),
            state=SimpleNamespace(status=status),
            personality=PersonalityName.WINDOWS if windows else PersonalityName.LINUX,
        )
        self.containers[name] = SimpleNamespace(id=name, record=record)


@pytest.fixture
def store() -> Store:
    return Store()


def registries(store: Any) -> Registries:
    parts: Any = SimpleNamespace(images=store, storage=store, image_of=store.image_of, personality=store.personality)
    return Registries(parts, store, store, Viewer())


def diff(store: Store, name: str, kind: str = "", base: str = "") -> str:
    other = RegistryObject(name=base) if base else None
    return asyncio.run(registries(store).diff(RegistryObject(name=name, kind=kind), "K", base=other))


def test_an_image(store: Store) -> None:
    work = registries(store)
    assert asyncio.run(work.query(RegistryObject(name="app"), "HKLM", value="v", recursive=True)) == (
        "query top+admin HKLM v True"
    )
    assert asyncio.run(work.export(RegistryObject(name="app"), "")) == "export top+admin "
    assert diff(store, "app") == "diff base+admin top+admin K"
    assert diff(store, "app", base="windows") == "diff base+admin top+admin K"


def test_the_current_user_of_an_image_is_the_one_it_names(store: Store) -> None:
    store.images["app"] = Image(
        id="2",
        platform=Platform(os="windows", architecture="amd64"),
        config=ImageConfig(user="ContainerUser"),
        layer_paths=(BASE, TOP),
    )
    assert diff(store, "app") == "diff base+other top+user K"


def test_a_container_against_its_image(store: Store) -> None:
    store.add("web", "app", Status.RUNNING)
    assert diff(store, "web") == "diff top+admin now K" and store.read == ["web"]
    assert diff(store, "web", base="windows") == "diff base+admin now K"
    store.add("own", "app", Status.EXITED, user="ContainerUser")
    assert diff(store, "own") == "diff top+user now K"


def test_a_container_that_never_ran_has_the_registry_of_its_image(store: Store) -> None:
    store.add("new", "app", Status.CREATED, user="ContainerUser")
    assert diff(store, "new") == "diff top+user top+user K" and store.read == []


def test_containers_come_first_and_a_kind_decides(store: Store) -> None:
    store.add("windows", "app", Status.EXITED)
    assert diff(store, "windows").endswith(" now K")
    assert diff(store, "windows", "image") == "diff base+admin base+admin K"
    with pytest.raises(NotFound, match="No such container: app"):
        diff(store, "app", "container")
    with pytest.raises(NotFound, match="no such container or image: none"):
        diff(store, "none")
    with pytest.raises(NotFound, match="no such image: none"):
        diff(store, "none", "image")
    with pytest.raises(InvalidRequest, match="'volume' has no registry"):
        diff(store, "app", "volume")


def test_linux_has_no_registry(store: Store) -> None:
    store.add("box", "alpine", Status.RUNNING, windows=False)
    for name in ("box", "alpine"):
        with pytest.raises(InvalidRequest, match=f"{name} is not a Windows one"):
            diff(store, name)


def test_an_image_without_registry_files(store: Store) -> None:
    store.images["empty"] = Image(id="4", platform=Platform(os="windows", architecture="amd64"), config=ImageConfig())
    with pytest.raises(NotFound, match=r"empty has no registry: none of /silo/prefix/system\.reg"):
        diff(store, "empty")


def test_hives(store: Store) -> None:
    work = registries(store)
    hive, other = (RegistryObject(name=name, hive=name.encode()) for name in ("a.hiv", "b.hiv"))
    assert asyncio.run(work.query(hive, "K")) == "query a.hiv+a.hiv K None False"
    assert asyncio.run(work.diff(hive, "K", base=other)) == "diff b.hiv+b.hiv a.hiv+a.hiv K"
    # alone it is shown as the change that it is
    assert asyncio.run(work.diff(hive, "K")) == "export a.hiv+a.hiv K"


# Files out of containers


def tar(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.linkname = kind, len(content), "x" if kind == tarfile.SYMTYPE else ""
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def read(data: bytes, limit_bytes: int = 100_000) -> bytes | None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    return asyncio.run(read_only_file(chunks(), "/x", limit_bytes=limit_bytes))


def test_a_file_out_of_a_tar() -> None:
    assert read(tar("x", b"content" * 999)) == b"content" * 999
    assert read(tar("x", kind=tarfile.SYMTYPE)) is None is read(tar("x", kind=tarfile.DIRTYPE))
    with pytest.raises(InvalidRequest, match="/x is larger than 100 bytes"):
        read(tar("x", bytes(70_000)), limit_bytes=100)
    for damaged in (b"", b"no tar" * 200, tar("x", b"c" * 3000)[:1500]):
        with pytest.raises(InvalidRequest, match="/x cannot be read"):
            read(damaged)


def test_a_running_container_is_saved_before_its_files_are_read() -> None:
    saved: list[str] = []

    async def body(bench: Bench) -> None:
        async def save(container_id: str) -> None:
            saved.append(container_id)

        async def read_tar(path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
            if "none" in path:
                raise NotFound(path)

            async def chunks() -> AsyncIterator[bytes]:
                yield tar("file", path.encode(), tarfile.DIRTYPE if "directory" in path else tarfile.REGTYPE)

            return {}, chunks()

        from tests.unit.engine import fakes

        bench.vm_runtime.save = save  # type: ignore[method-assign]
        container = await create(bench, isolation=bench.vm_runtime.isolation)
        await bench.engine.containers.start(container)
        original = fakes.FakeRootFiles.read
        fakes.FakeRootFiles.read = lambda _self, path: read_tar(path)  # type: ignore[method-assign, assignment]
        try:
            found = await bench.engine.files.contents(container, ("/a", "/none", "/directory"), limit_bytes=100)
        finally:
            fakes.FakeRootFiles.read = original  # type: ignore[method-assign]
        assert found == {"/a": b"/a"} and saved == [container]

    scenario(body)
