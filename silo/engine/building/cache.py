"""Steps that were made before: found among the children of an image, or in the history of images given by `--cache-from`.

A step is the same when it has the same parent, the same words in its history (which hold the values of build arguments and the
digests of copied files) and leads to the same configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from silo.engine.building.ports import StepStore
from silo.model.image import HistoryEntry, Image, ImageConfig


class Cache:
    """What one build may take from earlier ones."""

    def __init__(self, store: StepStore, *, enabled: bool, sources: Sequence[Image] = ()) -> None:
        self._store = store
        self._enabled = enabled
        self._sources = sources

    @property
    def enabled(self) -> bool:
        return self._enabled

    async def find(self, parent: Image, created_by: str, config: ImageConfig, author: str) -> Image | None:
        """The newest image that is `parent` with this step."""
        if not self._enabled:
            return None
        found = [
            child
            for child in self._store.children(parent.id)
            if child.history
            and child.history[-1].created_by == created_by
            and child.config == config
            and child.author == author
        ]
        if found:
            return max(found, key=lambda child: child.created)
        return await self._take_over(parent, created_by, config, author)

    async def _take_over(self, parent: Image, created_by: str, config: ImageConfig, author: str) -> Image | None:
        for source in self._sources:
            entry = next_entry(parent, source)
            if entry is not None and entry.created_by == created_by and entry.author == author:
                return await self._store.extend(parent, source, config=config, entry=entry)
        return None


def next_entry(parent: Image, source: Image) -> HistoryEntry | None:
    """The step that `source` has after all those of `parent`; None unless it was made from the same steps and layers."""
    count = len(parent.history)
    if len(source.history) <= count or parent.platform != source.platform:
        return None
    if [_key(entry) for entry in source.history[:count]] != [_key(entry) for entry in parent.history]:
        return None
    if source.layers[: len(parent.layers)] != parent.layers:
        return None
    return source.history[count]


def _key(entry: HistoryEntry) -> tuple[str, bool]:
    return entry.created_by, entry.empty_layer
