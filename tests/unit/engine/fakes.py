"""Fakes of the ports, enough to drive the engine without a host: programs end when the test says so."""

from __future__ import annotations

import shutil
import signal
import tempfile
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from silo.engine.engine import Engine
from silo.engine.parts import Parts
from silo.engine.ports import FileChange, RuntimeListener, VolumeInfo
from silo.errors import Conflict, ImageNotFound, NotFound
from silo.model.clock import now
from silo.model.container import ContainerRecord, Resources
from silo.model.image import Image, ImageConfig
from silo.model.log import encode_record
from silo.model.mount import PlannedMount
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig
from silo.model.platform import Isolation, PersonalityName, Platform
from silo.model.runtime import (
    ContainerPlan,
    ExitRecord,
    ProcessPlan,
    Rootfs,
    RuntimeReport,
    RuntimeState,
    Sandbox,
    ScratchOwner,
    Started,
)
from silo.model.vm_image import VmImage
from silo.windows.registry.looking import WindowsRegistry
from tests.support.documents import MemoryDocuments


class FakeRootFiles:
    """What a runtime that keeps the files shows of them; `told` is what it was asked."""

    def __init__(self, told: list[tuple[str, ...]]) -> None:
        self.told = told

    async def stat(self, path: str) -> dict[str, object]:
        self.told.append(("stat", path))
        return {"name": path}

    async def read(self, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        self.told.append(("read", path))
        if path == "/none":
            raise NotFound(path)
        return {"name": path}, self._chunks(b"read")

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        self.told.append(("write", path, b"".join([chunk async for chunk in chunks]).decode()))

    def export(self) -> AsyncIterator[bytes]:
        return self._chunks(b"export")

    def layer(self) -> AsyncIterator[bytes]:
        return self._chunks(b"layer")

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        yield data


class FakeRuntime:
    def __init__(self, isolation: Isolation = Isolation.PROCESS) -> None:
        self.isolation = isolation
        self.keeps_files = isolation is Isolation.HYPERV
        self.network_updates: list[str] = []
        self.fail_network_update: Exception | None = None
        self.files: list[tuple[str, ...]] = []
        self.listener: RuntimeListener
        self.running: dict[str, ContainerPlan] = {}
        self.prepared: set[str] = set()
        self.signals: list[tuple[str, int]] = []
        self.found: dict[str, RuntimeState] = {}
        self.fail_start: Exception | None = None
        self.ends_on_term = True
        self.plans: dict[str, ContainerPlan] = {}

    async def open(self, listener: RuntimeListener) -> None:
        self.listener = listener

    async def close(self) -> None: ...

    def report(self) -> RuntimeReport:
        return RuntimeReport(name="fake" if self.isolation is Isolation.PROCESS else "fake-vm")

    async def recover(self, ids: Sequence[str]) -> Mapping[str, RuntimeState]:
        return self.found

    async def prepare(self, plan: ContainerPlan) -> Sandbox:
        self.prepared.add(plan.id)
        self.plans[plan.id] = plan
        return Sandbox(id=plan.id, netns=Path("/proc/self/ns/net"), user_namespace=True)

    async def start(self, container_id: str) -> Started:
        if self.fail_start is not None:
            raise self.fail_start
        self.running[container_id] = self.plans[container_id]
        return Started(pid=4242)

    async def release(self, container_id: str) -> None:
        self.prepared.discard(container_id)

    async def signal(self, container_id: str, number: int) -> None:
        if container_id not in self.running:
            raise Conflict("not running")
        self.signals.append((container_id, number))
        if number == signal.SIGKILL or (number == signal.SIGTERM and self.ends_on_term):
            self.end(container_id, 128 + number)

    async def pause(self, container_id: str) -> None: ...
    async def unpause(self, container_id: str) -> None: ...
    async def save(self, container_id: str) -> None: ...
    async def update_network(self, container_id: str) -> None:
        self.network_updates.append(container_id)
        if self.fail_network_update is not None:
            raise self.fail_network_update

    def root_path(self, container_id: str) -> Path | None:
        return None

    @asynccontextmanager
    async def open_files(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AsyncIterator[FakeRootFiles]:
        self.files.append(("open", *(mount.target for mount in planned)))
        yield FakeRootFiles(self.files)
        self.files.append(("close",))

    def end(self, container_id: str, code: int = 0) -> None:
        del self.running[container_id]
        self.listener.on_exit(container_id, ExitRecord(exit_code=code, finished_at=now()))

    def write(self, container_id: str, data: bytes, stream: int = 1, time_ns: int = 1) -> None:
        with (self.plans[container_id].directory / "log").open("ab") as log:
            log.write(encode_record(stream, time_ns, data))
        self.listener.on_output(container_id)


class FakeNetworks:
    def __init__(self) -> None:
        self.known = {"bridge": NetworkConfig(id="b" * 64, name="bridge")}
        self.released: list[str] = []
        self.disconnected: list[tuple[str, str]] = []

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def get(self, reference: str) -> NetworkConfig:
        for network in self.known.values():
            if reference in (network.id, network.name):
                return network
        raise NotFound(f"network {reference} not found")

    async def connect(
        self, container_id: str, sandbox: Sandbox, requests: Sequence[EndpointRequest], *, dns_names: Sequence[str]
    ) -> tuple[Endpoint, ...]:
        del container_id, sandbox, dns_names
        return tuple(
            Endpoint(
                network_id=network.id,
                network_name=network.name,
                endpoint_id="e" * 64,
                ipv4_address=f"10.9.{number}.2",
                prefix_length=24,
                gateway=f"10.9.{number}.1",
                mac_address=f"02:42:0a:09:{number:02x}:02",
                host_interface=f"veth{number}",
                interface=f"eth{number}",
            )
            for request in requests
            for number, network in enumerate(self.known.values())
            if request.network in (network.id, network.name)
        )

    async def disconnect(self, container_id: str, network_id: str, *, sandbox: Sandbox | None = None) -> None:
        del sandbox
        self.disconnected.append((container_id, network_id))

    async def release(self, container_id: str) -> None:
        self.released.append(container_id)

    async def recover(self, alive: Any, bindings: Any) -> None: ...
    def resolver_address(self, endpoints: Any) -> None:
        return None


class FakeStorage:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.named: dict[str, VolumeInfo] = {}
        self.owned: list[ScratchOwner] = []
        self.limits: dict[str, int] = {}

    def container_directory(self, container_id: str) -> Path:
        return self.root / container_id

    def create_scratch(self, container_id: str, *, size_bytes: int = 0) -> None:
        (self.root / container_id).mkdir()
        self.limits[container_id] = size_bytes

    def discard_scratch(self, container_id: str) -> None:
        (self.root / container_id).rmdir()

    async def layer_changes(self, image: Image, chunks: AsyncIterator[bytes]) -> tuple[FileChange, ...]:
        assert [chunk async for chunk in chunks] == [b"layer"]
        return (FileChange(kind=1, path="/new"),)

    async def remove_scratch(self, container_id: str) -> None:
        for path in (self.root / container_id).iterdir():
            path.unlink()
        (self.root / container_id).rmdir()

    def known_containers(self) -> tuple[str, ...]:
        return tuple(path.name for path in self.root.iterdir())

    def rootfs(self, container_id: str, image: Image, *, read_only: bool, volatile: bool) -> Rootfs:
        return Rootfs(layers=(), scratch=self.root / container_id)

    def volumes(self) -> tuple[VolumeInfo, ...]:
        return tuple(self.named.values())

    def volume(self, name: str) -> VolumeInfo:
        if name not in self.named:
            raise NotFound(name)
        return self.named[name]

    def create_volume(self, info: VolumeInfo) -> VolumeInfo:
        return self.named.setdefault(info.name, info)

    def remove_volume(self, name: str) -> None:
        del self.named[name]

    def scratch_size_bytes(self, container_id: str) -> int:
        return 7

    async def own_scratch(self, rootfs: Rootfs, owner: ScratchOwner) -> None:
        self.owned.append(owner)

    async def plan_mount(self, request: Any, target: str, *, fill_from: Rootfs | None) -> PlannedMount:
        return PlannedMount(target=target, kind=request.kind)


class FakeImages:
    def __init__(self, config: ImageConfig | None = None) -> None:
        self.image = Image(
            id="sha256:" + "1" * 64,
            platform=Platform(os="linux", architecture="amd64"),
            config=config or ImageConfig(cmd=("sh",)),
            tags=("bb:latest",),
        )

    def get(self, reference: str, *, platform: str = "") -> Image:
        if reference not in ("bb", "bb:latest", self.image.id):
            raise ImageNotFound(f"No such image: {reference}")
        return self.image

    def find(self, reference: str, *, platform: str = "") -> Image | None:
        return self.image

    def all(self) -> tuple[Image, ...]:
        return (self.image,)

    def collect_garbage(self) -> int:
        return 0


class FakePersonality:
    name = PersonalityName.LINUX
    owner: ScratchOwner | None = None

    def check(self, config: Any, image: Image) -> tuple[str, ...]:
        return ()

    def check_resources(self, resources: Resources, isolation: Isolation) -> tuple[str, ...]:
        return ()

    def limits(self, resources: Resources, isolation: Isolation) -> Resources:
        return resources

    def plan_main(self, config: Any, image: Image, *, hostname: str, container_id: str) -> tuple[ProcessPlan, None]:
        return ProcessPlan(args=config.cmd or image.config.cmd), None

    def scratch_owner(self, config: Any, image: Image) -> ScratchOwner | None:
        return self.owner

    def describe_command(self, config: Any, image: Image) -> tuple[str, tuple[str, ...]]:
        return "sh", ()

    def map_path(self, path: str, *, working_dir: str = "") -> str:
        return path

    def plan_special_mounts(self, files: Mapping[str, Path]) -> tuple[()]:
        return ()

    def default_masked_paths(self) -> tuple[str, ...]:
        return ("/proc/kcore",)

    def default_readonly_paths(self) -> tuple[str, ...]:
        return ()

    def default_stop_signal(self) -> int:
        return int(signal.SIGTERM)

    def default_stop_timeout_s(self) -> int:
        return 10


class FakeVmImages:
    """A source of utility VMs that have been built by name."""

    def __init__(self) -> None:
        self.names = {"default": "ab" * 32}
        self.kernels: list[str] = []

    def build(self, progress: Any, *, refresh: bool, name: str = "default", kernel: str = "") -> VmImage:
        progress("packing", 0.25)
        self.names[name] = "ab" * 32
        self.kernels.append(kernel)
        return self._image(name)

    def add(self, directory: Path, *, name: str) -> VmImage:
        self.names[name] = "cd" * 32
        return self._image(name)

    def find(self, name: str) -> VmImage | None:
        return self._image(name) if name in self.names else None

    def all(self) -> tuple[VmImage, ...]:
        return tuple(map(self._image, self.names))

    def remove(self, name: str) -> bool:
        return self.names.pop(name, None) is not None

    def _image(self, name: str) -> VmImage:
        key = self.names[name]
        return VmImage(
            id=key,
            name=name,
            directory=Path("/vm") / key[:2],
            kernel_release="6.12.1-amd64",
            created_s=1_700_000_000,
            size_bytes=7,
        )


class Bench:
    """An engine over fakes, with a state that can outlive it."""

    def __init__(self, *, image: ImageConfig | None = None, default_isolation: Isolation = Isolation.PROCESS) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="silo-engine-"))
        weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)
        self.documents = MemoryDocuments(ContainerRecord)
        self.image = image
        self.default_isolation = default_isolation
        self.personality = FakePersonality()
        self.storage = FakeStorage(self.root)
        self.vm_images = FakeVmImages()
        self.restart_daemon()

    def restart_daemon(self) -> None:
        self.runtime = FakeRuntime()
        self.vm_runtime = FakeRuntime(Isolation.HYPERV)
        self.images = FakeImages(self.image)
        self.networks = FakeNetworks()
        parts = Parts(
            images=self.images,  # type: ignore[arg-type]
            networks=self.networks,  # type: ignore[arg-type]
            storage=self.storage,  # type: ignore[arg-type]
            runtimes={runtime.isolation: runtime for runtime in (self.runtime, self.vm_runtime)},  # type: ignore[misc]
            personalities={PersonalityName.LINUX: self.personality},  # type: ignore[dict-item]
            data_root=self.root,
            run_root=self.root,
            default_isolation=self.default_isolation,
        )
        self.engine = Engine(
            parts,
            self.documents,
            daemon_id="d",
            base=None,  # type: ignore[arg-type]
            vm_image=self.vm_images,
            registry=WindowsRegistry(),
        )
