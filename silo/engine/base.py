"""`silo base build`: what Silo builds itself from a distribution's packages.

`windows` is an image, made of Wine and put into the store; `vm` is what virtual machines boot, and stays a directory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from silo.engine.events import EventBus
from silo.engine.ports import ImageStore, Progress
from silo.errors import NotFound
from silo.model.image import Image
from silo.model.vm_image import VmImage

WINDOWS_REFERENCE = "windows:latest"
_PROMILLE = 1000


class BaseSource(Protocol):
    """Builds the base and answers the OCI layout directory; blocks, and returns at once what was built before."""

    def build(self, progress: BaseProgress, *, refresh: bool) -> Path: ...


class VmImageSource(Protocol):
    """Builds the image of utility VMs; blocks, and returns at once what was built before. `find` never builds."""

    def build(self, progress: BaseProgress, *, refresh: bool) -> VmImage: ...

    def find(self) -> VmImage | None: ...


class BaseProgress(Protocol):
    def __call__(self, step: str, fraction: float) -> None: ...


def _teller(progress: Progress, name: str) -> BaseProgress:
    """Hands a builder's progress from its thread to the loop."""
    loop = asyncio.get_running_loop()

    def tell(step: str, fraction: float) -> None:
        loop.call_soon_threadsafe(progress, name, step, int(fraction * _PROMILLE), _PROMILLE)

    return tell


class Bases:
    """The two bases: windows and vm."""

    def __init__(self, source: BaseSource, vm_source: VmImageSource, images: ImageStore, events: EventBus) -> None:
        self._source = source
        self._vm_source = vm_source
        self._images = images
        self._events = events
        self._lock = asyncio.Lock()
        self._vm_lock = asyncio.Lock()

    async def build(self, progress: Progress, *, refresh: bool = False) -> Image:
        """The image `windows`; raises what the builder raises (NoSpace, Unavailable, ToolMissing, CommandFailed)."""
        tell = _teller(progress, "windows")
        async with self._lock:
            layout = await asyncio.to_thread(lambda: self._source.build(tell, refresh=refresh))
            progress("windows", "importing the image", _PROMILLE, _PROMILLE)
            image = await self._images.import_layout(layout, reference=WINDOWS_REFERENCE)
        self._events.publish("image", "load", image.id, {"name": WINDOWS_REFERENCE})
        return image

    async def build_vm(self, progress: Progress, *, refresh: bool = False) -> VmImage:
        """The image of utility VMs; raises what the builder raises (NoSpace, Unavailable, ToolMissing, CommandFailed)."""
        tell = _teller(progress, "vm")
        async with self._vm_lock:
            return await asyncio.to_thread(lambda: self._vm_source.build(tell, refresh=refresh))

    async def find_vm(self) -> VmImage:
        """The image of utility VMs that is there. Raises NotFound."""
        found = await asyncio.to_thread(self._vm_source.find)
        if found is None:
            raise NotFound("the image of utility VMs is not built", hint="silo base build vm")
        return found
