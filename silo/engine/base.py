"""`silo base build windows`: the base image, built from a distribution's Wine and put into the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from silo.engine.events import EventBus
from silo.engine.ports import ImageStore, Progress
from silo.model.image import Image

WINDOWS_REFERENCE = "windows:latest"
_PROMILLE = 1000


class BaseSource(Protocol):
    """Builds the base and answers the OCI layout directory; blocks, and returns at once what was built before."""

    def build(self, progress: BaseProgress, *, refresh: bool) -> Path: ...


class BaseProgress(Protocol):
    def __call__(self, step: str, fraction: float) -> None: ...


class Bases:
    """One base today: windows."""

    def __init__(self, source: BaseSource, images: ImageStore, events: EventBus) -> None:
        self._source = source
        self._images = images
        self._events = events
        self._lock = asyncio.Lock()

    async def build(self, progress: Progress, *, refresh: bool = False) -> Image:
        """The image `windows`; raises what the builder raises (NoSpace, Unavailable, ToolMissing, CommandFailed)."""
        loop = asyncio.get_running_loop()

        def tell(step: str, fraction: float) -> None:
            loop.call_soon_threadsafe(progress, "windows", step, int(fraction * _PROMILLE), _PROMILLE)

        async with self._lock:
            layout = await asyncio.to_thread(lambda: self._source.build(tell, refresh=refresh))
            progress("windows", "importing the image", _PROMILLE, _PROMILLE)
            image = await self._images.import_layout(layout, reference=WINDOWS_REFERENCE)
        self._events.publish("image", "load", image.id, {"name": WINDOWS_REFERENCE})
        return image
