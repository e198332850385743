"""`docker info`, `version`, `system df`, `events`: what the engine says of itself and of the host."""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

import silo
from silo.engine.events import Event, EventBus
from silo.engine.filters import Filters, any_of, check_keys, labels_match
from silo.engine.parts import Parts
from silo.engine.roster import Roster
from silo.engine.states import ALIVE
from silo.model.clock import now
from silo.model.container import Status
from silo.model.platform import Isolation
from silo.model.runtime import RuntimeReport

_EVENT_KEYS = ("type", "event", "container", "image", "volume", "network", "label", "label!", "daemon", "scope")


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts for `docker info`; `runtimes` tell what was probed on this host and what happens instead where it lacks."""

    id: str
    name: str
    version: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    cpus: int
    memory_bytes: int
    data_root: Path
    default_isolation: Isolation
    runtimes: tuple[RuntimeReport, ...]
    network: dict[str, str]
    personalities: tuple[str, ...]
    warnings: tuple[str, ...]
    system_time: str
    event_followers: int = 0
    insecure_registries: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """`docker system df`: bytes by container scratch (id →) and volume (name → (bytes, users)); images in all."""

    layers_bytes: int
    scratch_bytes: dict[str, int]
    volumes: dict[str, tuple[int, int]]


class System:
    """`docker system …`."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus, daemon_id: str) -> None:
        self._parts = parts
        self._roster = roster
        self._events = events
        self._daemon_id = daemon_id

    async def info(self) -> SystemInfo:
        parts = self._parts
        states = [live.record.state.status for live in self._roster]
        reports = tuple(runtime.report() for runtime in parts.runtimes.values())
        release = _os_release()
        return SystemInfo(
            id=self._daemon_id,
            name=os.uname().nodename,
            version=silo.__version__,
            containers=len(states),
            running=states.count(Status.RUNNING),
            paused=states.count(Status.PAUSED),
            stopped=sum(1 for status in states if status not in ALIVE),
            images=len(parts.images.all()),
            kernel_version=os.uname().release,
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            data_root=parts.data_root,
            default_isolation=parts.default_isolation,
            runtimes=reports,
            network=parts.networks.report(),
            personalities=tuple(parts.personalities),
            warnings=tuple(warning for report in reports for warning in report.warnings),
            system_time=now(),
        )

    async def disk_usage(self) -> Usage:
        storage = self._parts.storage
        named = {
            volume.name: sum(
                1 for live in self._roster if any(point.name == volume.name for point in live.record.mounts)
            )
            for volume in storage.volumes()
        }
        return Usage(
            layers_bytes=self._parts.images.disk_usage_bytes(),
            scratch_bytes={live.id: storage.scratch_size_bytes(live.id) for live in self._roster},
            volumes={name: (storage.volume_size_bytes(name), users) for name, users in named.items()},
        )

    def events(
        self, filters: Filters, *, since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncIterator[Event]:
        check_keys(filters, _EVENT_KEYS)

        def matches(event: Event) -> bool:
            def names(kind: str) -> bool:
                return any_of(
                    filters,
                    kind,
                    lambda text: (
                        (
                            event.type == kind
                            and (event.actor_id.startswith(text) or event.attributes.get("name") == text)
                        )
                        or event.attributes.get(kind) == text
                    ),
                )

            return (
                any_of(filters, "type", lambda text: event.type == text)
                and any_of(filters, "event", lambda text: event.action == text or event.action.split(":")[0] == text)
                and all(names(kind) for kind in ("container", "image", "volume", "network"))
                and labels_match(event.attributes, filters)
            )

        return self._events.follow(since_ns=since_ns, until_ns=until_ns, matches=matches)


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip('"') for name, _, value in pairs}
