"""The only module that names concrete implementations: which class really runs is answered here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from silo import guest
from silo.api.server import ApiServer
from silo.config.settings import Settings
from silo.engine.base import BaseProgress, get_vm_image
from silo.engine.engine import Engine
from silo.engine.parts import Parts
from silo.engine.ports import VolumeInfo
from silo.host.time_zones import find_time_zone_rule
from silo.images.limits import ImageLimits
from silo.images.records import ImageRecord
from silo.images.store import LocalImageStore
from silo.isolation.pipes import HostPipes
from silo.isolation.process.runtime import ProcessRuntime
from silo.isolation.vm.choosing import VmSettings
from silo.isolation.vm.hyperv import HypervRuntime
from silo.isolation.vm.runtime import VmRuntime
from silo.linux.personality import LinuxPersonality
from silo.model.container import ContainerRecord
from silo.model.ids import new_id
from silo.model.network import NetworkConfig
from silo.model.platform import Isolation, PersonalityName
from silo.model.vm_image import DEFAULT_VM_IMAGE, VmImage
from silo.network.bridge import BridgeNetworks
from silo.state import Database
from silo.storage import LocalStorage
from silo.windows.base.environment import OS_VERSION
from silo.windows.layer_format import WindowsLayerFormat
from silo.windows.personality import WindowsPersonality
from silo.windows.registry.looking import WindowsRegistry
from silo.windows.registry_text import compare_registry


class WineBase:
    """The Windows base from Debian's Wine and our launcher."""

    def __init__(self, cache_root: Path) -> None:
        self._cache_root = cache_root

    def build(self, progress: BaseProgress, *, refresh: bool) -> Path:
        # Loaded on use: building is rare, and the daemon's memory is counted.
        from silo.windows.base.build import build_base
        from silo.windows.launcher.build import launcher_files

        files = launcher_files(self._cache_root / "launcher")
        return build_base(self._cache_root, extra_files=files, refresh=refresh, progress=progress).layout


def _agent_files() -> Mapping[str, Path]:
    checkout = Path(__file__).resolve().parent.parent
    names = [*guest.FILES, *(f"silo/guest/{path.name}" for path in sorted((checkout / "silo/guest").glob("*.py")))]
    return {"/silo/agent": checkout / guest.BOOT, **{f"/silo/lib/{name}": checkout / name for name in names}}


AGENT_FILES: Mapping[str, Path] = _agent_files()
"""What the image of utility VMs holds of Silo itself: absolute path in it → file of the host."""


class UtilityVm:
    """The images of utility VMs: from Debian's packages and the agent (see AGENT_FILES), or a user's own."""

    def __init__(self, cache_root: Path, agent_files: Mapping[str, Path]) -> None:
        self._cache_root = cache_root
        self._agent_files = agent_files

    def build(
        self, progress: BaseProgress, *, refresh: bool, name: str = DEFAULT_VM_IMAGE, kernel: str = ""
    ) -> VmImage:
        # Loaded on use: building is rare, and the daemon's memory is counted.
        from silo.isolation.vm.base.build import build_vm_base
        from silo.isolation.vm.base.images import describe
        from silo.isolation.vm.base.recipe import KERNEL_PACKAGE
        from silo.linux.entry.build import build_entry

        built = build_vm_base(
            self._cache_root,
            extra_files={**self._agent_files, guest.ENTRY: build_entry(self._cache_root / "entry")},
            name=name,
            kernel_package=kernel or KERNEL_PACKAGE,
            refresh=refresh,
            progress=progress,
        )
        return describe(built, name)

    def add(self, directory: Path, *, name: str) -> VmImage:
        from silo.isolation.vm.base.images import describe, import_vm_base

        return describe(import_vm_base(self._cache_root, directory, name=name), name)

    def find(self, name: str) -> VmImage | None:
        from silo.isolation.vm.base.images import check_named, describe, find_named

        check_named(self._cache_root, name)
        found = find_named(self._cache_root, name)
        return describe(found, name) if found else None

    def all(self) -> tuple[VmImage, ...]:
        from silo.isolation.vm.base.images import describe, find_all

        return tuple(describe(base, name) for name, base in find_all(self._cache_root).items())

    def remove(self, name: str) -> bool:
        from silo.isolation.vm.base.images import remove_named

        return remove_named(self._cache_root, name)


class VmFinder:
    """Which utility VM a container gets. The one that is always there is built by its first use."""

    def __init__(self, source: UtilityVm, usual: str) -> None:
        self._source = source
        self._usual = usual
        self._building = asyncio.Lock()

    async def find(self, name: str) -> VmImage:
        """Raises NotFound, HostError (it is damaged), and what the builder raises."""
        name = name or self._usual
        async with self._building:
            found = self._source.find(name)
            if found is None and name == DEFAULT_VM_IMAGE:
                found = await asyncio.to_thread(self._source.build, _log_progress, refresh=False)
        return found or get_vm_image(self._source, name)


def _log_progress(step: str, fraction: float) -> None:
    logging.getLogger("silo.vm").info("building the utility VM: %s (%.0f %%)", step, fraction * 100)


@asynccontextmanager
async def build_daemon(settings: Settings) -> AsyncIterator[ApiServer]:
    """The API server over an opened engine; closed in the opposite order."""
    database = Database(settings.data_root / "state.db")
    # Containers of both levels meet at them.
    pipes = HostPipes(settings.run_root / "pipes")
    utility_vm = UtilityVm(settings.cache_root, agent_files=AGENT_FILES)
    try:
        images = LocalImageStore(
            data_root=settings.data_root,
            records=database.documents("images", ImageRecord),
            limits=ImageLimits(layer_bytes=settings.max_layer_bytes),
            insecure_registries=settings.insecure_registries,
            windows=WindowsLayerFormat(),
            windows_version=OS_VERSION,
            bases_mirror=settings.windows_bases_mirror,
            push_silo_base=settings.push_silo_base,
        )
        storage = LocalStorage(
            data_root=settings.data_root,
            run_root=settings.run_root,
            volumes=database.documents("volumes", VolumeInfo),
            compare_registry=compare_registry,
        )
        parts = Parts(
            images=images,
            networks=BridgeNetworks(
                run_root=settings.run_root,
                networks=database.documents("networks", NetworkConfig),
                default_subnet=settings.subnet,
                bridge_name=settings.bridge,
            ),
            storage=storage,
            runtimes={
                Isolation.PROCESS: ProcessRuntime(
                    run_root=settings.run_root,
                    data_root=settings.data_root,
                    linux_pool=settings.linux_pool,
                    windows_pool=settings.windows_pool,
                    pipes=pipes,
                ),
                Isolation.HYPERV: HypervRuntime(
                    VmRuntime(
                        run_root=settings.run_root,
                        data_root=settings.data_root,
                        pipes=pipes,
                        find_image=VmFinder(utility_vm, settings.vm_image).find,
                        settings=VmSettings(
                            default_memory_bytes=settings.vm_default_memory,
                            scratch_bytes=settings.vm_scratch_bytes,
                            acceleration=settings.vm_acceleration,
                            pool=settings.vm_pool,
                            pool_memory_bytes=settings.vm_memory,
                        ),
                    )
                ),
            },
            personalities={
                PersonalityName.LINUX: LinuxPersonality(),
                PersonalityName.WINDOWS: WindowsPersonality(find_time_zone_rule),
            },
            data_root=settings.data_root,
            run_root=settings.run_root,
            default_isolation=Isolation(settings.default_isolation),
            vm_image=settings.vm_image,
        )
        engine = Engine(
            parts,
            database.documents("containers", ContainerRecord),
            daemon_id=_daemon_id(settings.data_root),
            base=WineBase(settings.cache_root),
            vm_image=utility_vm,
            build_files=storage.builds,
            registry=WindowsRegistry(),
            login=images.login,
        )
        images.build_base_by(engine.base.build)
        await engine.open()
        try:
            yield ApiServer(engine, log=logging.getLogger("silo.api"))
        finally:
            await engine.close()
            await images.finish_syncing()
    finally:
        database.close()


def _daemon_id(data_root: Path) -> str:
    """This installation's id, made at its first start."""
    path = data_root / "daemon-id"
    if not path.exists():
        path.write_text(new_id() + "\n")
    return path.read_text().strip()
