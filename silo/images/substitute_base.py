"""Silo's own Windows base as the store has it, for threads that need it in the place of another; built when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from silo.engine.ports import Progress
from silo.errors import NotFound
from silo.images.catalog import Catalog
from silo.images.records import ImageRecord
from silo.model.image import Image


class SubstituteBase:
    """Implements `silo.images.intake.KnownBases`."""

    def __init__(self, catalog: Catalog, os_version: str) -> None:
        self._catalog = catalog
        self.os_version = os_version
        self.build: Callable[[Progress], Awaitable[Image]] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def count(self, diff_ids: Sequence[str]) -> int:
        return self._catalog.windows_chain(diff_ids)

    def substitute(self, progress: Progress) -> ImageRecord:
        """Blocks while the base is built: never called on the event loop."""
        found = self._catalog.windows_base()
        if found is None and self.build is not None and self.loop is not None:
            asyncio.run_coroutine_threadsafe(self._built(progress), self.loop).result()
            found = self._catalog.windows_base()
        if found is None:
            raise NotFound(
                "Silo's Windows base, which runs in the place of Microsoft's, is not built",
                hint="silo base build windows",
            )
        return found

    async def _built(self, progress: Progress) -> None:
        assert self.build is not None
        await self.build(progress)
