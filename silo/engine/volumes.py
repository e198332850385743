"""The use cases around volumes."""

from __future__ import annotations

from collections.abc import Mapping

from silo.engine.events import EventBus
from silo.engine.filters import Filters, any_of, check_keys, labels_match, parse_flag
from silo.engine.parts import Parts
from silo.engine.ports import VolumeInfo
from silo.engine.roster import Roster
from silo.errors import Conflict, InvalidRequest, NotFound
from silo.model.clock import now
from silo.model.ids import NAME_PATTERN, new_id


class Volumes:
    """`docker volume …`."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus) -> None:
        self._storage = parts.storage
        self._data_root = parts.data_root
        self._roster = roster
        self._events = events

    def all(self, filters: Filters | None = None) -> tuple[VolumeInfo, ...]:
        filters = filters or {}
        check_keys(filters, ("name", "driver", "label", "label!", "dangling"))
        dangling = filters.get("dangling", ())
        wanted = parse_flag(dangling[0], "dangling") if dangling else None
        return tuple(
            volume
            for volume in sorted(self._storage.volumes(), key=lambda volume: volume.name)
            if labels_match(volume.labels, filters)
            and any_of(filters, "name", lambda text, volume=volume: text in volume.name)  # type: ignore[misc]
            and any_of(filters, "driver", lambda text, volume=volume: text == volume.driver)  # type: ignore[misc]
            and (wanted is None or (not self.in_use(volume.name)) is wanted)
        )

    def get(self, name: str) -> VolumeInfo:
        return self._storage.volume(name)

    def in_use(self, name: str) -> tuple[str, ...]:
        """Ids of the containers that name a volume, running or not."""
        return tuple(live.id for live in self._roster if any(point.name == name for point in live.record.mounts))

    def size_bytes(self, name: str) -> int:
        return self._storage.volume_size_bytes(name)

    def create(
        self, name: str, *, driver: str = "local", options: Mapping[str, str], labels: Mapping[str, str]
    ) -> VolumeInfo:
        if name and not NAME_PATTERN.match(name):
            raise InvalidRequest(
                f'create {name}: "{name}" includes invalid characters for a local volume name',
                hint="only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            )
        info = VolumeInfo(
            name=name or new_id(),
            path=self._data_root,
            created=now(),
            driver=driver or "local",
            options=dict(options),
            labels=dict(labels),
            anonymous=not name,
        )
        made = self._storage.create_volume(info)
        self._events.publish("volume", "create", made.name, {"driver": made.driver})
        return made

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless forced) and Conflict while a container names it."""
        try:
            volume = self._storage.volume(name)
        except NotFound:
            if force:
                return
            raise
        if users := self.in_use(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self._storage.remove_volume(volume.name)
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})

    async def prune(self, filters: Filters) -> tuple[tuple[str, ...], int]:
        """Remove anonymous volumes that nothing names (all=true: named ones too). Answers (names, bytes freed)."""
        check_keys(filters, ("label", "label!", "all"))
        everything = any(parse_flag(text, "all") for text in filters.get("all", ()))
        removed, freed = [], 0
        for volume in self._storage.volumes():
            if self.in_use(volume.name) or not (everything or volume.anonymous):
                continue
            if not labels_match(volume.labels, filters):
                continue
            size = self._storage.volume_size_bytes(volume.name)
            self._storage.remove_volume(volume.name)
            self._events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
            removed.append(volume.name)
            freed += size
        return tuple(removed), freed
