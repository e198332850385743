"""The engine: all use cases behind one object, and the daemon's start and end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import cast

from silo.engine.base import Bases, BaseSource, VmImageSource
from silo.engine.building.builds import Builds
from silo.engine.building.ports import BuildFiles, StepStore
from silo.engine.containers import Containers
from silo.engine.events import EventBus
from silo.engine.execs import Execs
from silo.engine.files import ContainerFiles
from silo.engine.images import Images
from silo.engine.lifecycle import Lifecycle
from silo.engine.networks import NetworkUseCases
from silo.engine.parts import Parts
from silo.engine.ports import RegistryViewer
from silo.engine.recovery import recover
from silo.engine.registry import Registries
from silo.engine.roster import Roster
from silo.engine.system import System
from silo.engine.volumes import Volumes
from silo.errors import Unsupported
from silo.model.container import ContainerRecord
from silo.model.persistence import Documents
from silo.model.platform import Isolation

log = logging.getLogger(__name__)


class Engine:
    """Assembled in `silo.wiring`. Call `open` once before anything else."""

    def __init__(
        self,
        parts: Parts,
        documents: Documents[ContainerRecord],
        *,
        daemon_id: str,
        base: BaseSource,
        vm_image: VmImageSource,
        registry: RegistryViewer,
        build_files: BuildFiles | None = None,
        login: Callable[[str, str, str], Awaitable[str]] | None = None,
    ) -> None:
        self._parts = parts
        self._roster = Roster(documents)
        self.events = EventBus()
        self._lifecycle = Lifecycle(parts, self._roster, self.events)
        self.containers = Containers(parts, self._roster, self.events, self._lifecycle, vm_image)
        self.files = ContainerFiles(parts, self._roster, self._lifecycle)
        self.registries = Registries(parts, self._roster, self.files, registry)
        self.execs = Execs(parts, self._roster.resolve, self.events)
        self.images = Images(parts, self._roster, self.events)
        self.networks = NetworkUseCases(parts, self._roster, self.events, self.containers)
        self.volumes = Volumes(parts, self._roster, self.events)
        self.system = System(parts, self._roster, self.events, daemon_id)
        self.base = Bases(base, vm_image, parts.images, self.events, vm_users=self.containers.vm_users)
        self._login = login
        self._builds: Builds | None = None
        if build_files is not None:
            self._builds = Builds(
                parts,
                self._roster,
                self.events,
                self.containers,
                self.files,
                store=cast(StepStore, parts.images),
                files=build_files,
            )
            self.images.held = self._builds.images_in_use

    @property
    def builds(self) -> Builds:
        """Raises Unsupported where the engine was assembled without."""
        if self._builds is None:
            raise Unsupported("building images is not supported")
        return self._builds

    @property
    def default_isolation(self) -> Isolation:
        """The level of containers that do not name one."""
        return self._parts.default_isolation

    async def auth(self, username: str, password: str, server: str) -> str:
        """Try a registry login; answers its status sentence. Raises AccessDenied."""
        if self._login is None:
            raise Unsupported("registry login is not supported")
        return await self._login(username, password, server)

    async def open(self) -> None:
        """Raises what a port raises (another daemon manages this network, …); nothing that was started stays then."""
        try:
            for runtime in self._parts.runtimes.values():
                await runtime.open(self._lifecycle)
            await self._parts.networks.open()
            unfinished = self._builds.find_unfinished() if self._builds is not None else ()
            await recover(self._parts, self._roster, self._lifecycle)
            if self._builds is not None:
                await self._builds.remove_unfinished(unfinished)
        except BaseException:
            for runtime in self._parts.runtimes.values():
                try:
                    await runtime.close()
                except Exception:
                    log.exception("closing after a failed start")
            raise
        self._parts.images.collect_garbage()

    async def close(self) -> None:
        """Containers go on running; the next daemon finds them."""
        await self._lifecycle.drain()
        await self._parts.networks.close()
        for runtime in self._parts.runtimes.values():
            await runtime.close()
