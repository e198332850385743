"""`silo base`: what Silo builds itself from a distribution's packages.

`windows` is an image, made of Wine and put into the store. `vm` is what virtual machines boot, and stays a directory; there may be
several, by name, also such as a user brought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from silo.engine.events import EventBus
from silo.engine.ports import ImageStore, Progress
from silo.errors import Conflict, InvalidRequest, NotFound
from silo.model.image import Image
from silo.model.vm_image import DEFAULT_VM_IMAGE, VmImage

WINDOWS_REFERENCE = "windows:latest"
_PROMILLE = 1000


class BaseSource(Protocol):
    """Builds the base and answers the OCI layout directory; blocks, and returns at once what was built before."""

    def build(self, progress: BaseProgress, *, refresh: bool) -> Path: ...


class VmImageSource(Protocol):
    """The images of utility VMs, by name. `find` and `all` never build and read a few small files; the others block longer."""

    def build(self, progress: BaseProgress, *, refresh: bool, name: str = ..., kernel: str = ...) -> VmImage:
        """With the kernel of a package (empty: the usual one); returns at once what was built before."""

    def add(self, directory: Path, *, name: str) -> VmImage:
        """A user's own: a directory with vmlinuz, initrd.img and root.erofs, which are copied. Raises InvalidRequest, NoSpace."""

    def find(self, name: str) -> VmImage | None:
        """Raises InvalidRequest for what cannot be a name, HostError for an image that is damaged."""

    def all(self) -> tuple[VmImage, ...]: ...
    def remove(self, name: str) -> bool:
        """False if there is none of that name."""


class BaseProgress(Protocol):
    def __call__(self, step: str, fraction: float) -> None: ...


def _teller(progress: Progress, name: str) -> BaseProgress:
    """Hands a builder's progress from its thread to the loop."""
    loop = asyncio.get_running_loop()

    def tell(step: str, fraction: float) -> None:
        loop.call_soon_threadsafe(progress, name, step, int(fraction * _PROMILLE), _PROMILLE)

    return tell


def get_vm_image(source: VmImageSource, name: str) -> VmImage:
    """Raises NotFound, which says what there is and what to do; HostError for an image that is damaged."""
    found = source.find(name)
    if found is not None:
        return found
    known = [image.name for image in source.all()]
    word = "" if name == DEFAULT_VM_IMAGE else f" --name {name}"
    raise NotFound(
        f"there is no utility VM named {name}",
        details=f"known: {', '.join(known)}" if known else "none is built",
        hint=f"silo base build vm{word}",
    )


class Bases:
    """The bases: windows, and the utility VMs."""

    def __init__(
        self,
        source: BaseSource,
        vm_source: VmImageSource,
        images: ImageStore,
        events: EventBus,
        *,
        vm_users: Callable[[str], Sequence[str]],
    ) -> None:
        """`vm_users`: names of the containers that need a utility VM, by its name."""
        self._source = source
        self._vm_source = vm_source
        self._images = images
        self._events = events
        self._vm_users = vm_users
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

    async def build_vm(self, progress: Progress, *, name: str = "", kernel: str = "", refresh: bool = False) -> VmImage:
        """A utility VM; raises what the builder raises (InvalidRequest, NoSpace, Unavailable, ToolMissing, CommandFailed)."""
        tell, name = _teller(progress, "vm"), name or DEFAULT_VM_IMAGE
        async with self._vm_lock:
            return await asyncio.to_thread(
                lambda: self._vm_source.build(tell, refresh=refresh, name=name, kernel=kernel)
            )

    async def import_vm(self, directory: str, *, name: str) -> VmImage:
        """Raises InvalidRequest, NoSpace."""
        if not name:
            raise InvalidRequest("the utility VM to import needs a name", hint="--name")
        if not directory.startswith("/"):
            raise InvalidRequest(f"{directory!r} is not an absolute path")
        async with self._vm_lock:
            return await asyncio.to_thread(lambda: self._vm_source.add(Path(directory), name=name))

    async def vm_images(self) -> tuple[VmImage, ...]:
        return await asyncio.to_thread(self._vm_source.all)

    async def remove_vm(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound, Conflict (a container needs it; `force` removes it nevertheless)."""
        users = self._vm_users(name)
        if users and not force:
            raise Conflict(
                f"the utility VM {name} is needed by {', '.join(users)}", hint="remove the containers first, or --force"
            )
        async with self._vm_lock:
            if not await asyncio.to_thread(self._vm_source.remove, name):
                await asyncio.to_thread(get_vm_image, self._vm_source, name)
