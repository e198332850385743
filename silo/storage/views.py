"""Directories that show a container's root to the daemon.

A running container shows its own root; there, ids on the disk appear shifted by the container's user namespace. For a stopped
one the layers and the scratch are mounted without id mapping for as long as somebody looks, once for all who look.

    <run root>/views/<random>/     the mount points; in the daemon's private mount namespace
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec

from silo.errors import InvalidRequest
from silo.host import mounts
from silo.host.beneath import Root
from silo.model.finishing import to_the_end
from silo.model.mount import PlannedMount
from silo.model.runtime import Rootfs
from silo.storage.failures import explained


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to ids on the disk in a view: the container's uid 0 appears as `uid`."""

    uid: int = 0
    gid: int = 0


Shown = Callable[[], AbstractContextManager[Path]]
"""Shows several directories as one for as long as it is entered."""


class Setting(msgspec.Struct, frozen=True):
    """Where an upper directory belongs: `lower`, its lower layers, and `whole`, it and them. Entered only when they are needed."""

    lower: Shown
    whole: Shown


class _Shared:
    """One mount of a stopped container and the number of those who look at it; `path` is empty while it is not mounted."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.path = Path()
        self.attached: set[str] = set()


class _Running:
    """A running container's root and the number of those who look at it."""

    def __init__(self, shift: Shift) -> None:
        self.shift = shift
        self.users = 0


class Views:
    """All views beneath `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shared: dict[Path, _Shared] = {}
        self._running: dict[Path, _Running] = {}

    def shift_of(self, root: Path) -> Shift:
        """Of a root that `shown` has given out; none for any other."""
        running = self._running.get(root)
        return running.shift if running else Shift()

    @contextlib.asynccontextmanager
    async def shown(
        self, rootfs: Rootfs, running_root: Path | None, planned: Sequence[PlannedMount] = ()
    ) -> AsyncIterator[Path]:
        """A directory with the container's root, writable; in a stopped one's also volumes and bind mounts (`planned`).

        Raises HostError, NoSpace, InvalidRequest (a mount's target cannot be made).
        """
        if running_root is not None:
            shift = _shift(running_root, rootfs.scratch / "upper")
            running = self._running.setdefault(running_root, _Running(shift))
            running.users += 1
            try:
                yield running_root
            finally:
                running.users -= 1
                if not running.users:
                    self._running.pop(running_root, None)
            return
        shared = self._shared.setdefault(rootfs.scratch, _Shared())
        shared.users += 1
        try:
            async with shared.lock:
                await to_the_end(asyncio.to_thread(self._open, shared, rootfs, planned))
            yield shared.path
        finally:
            shared.users -= 1
            # a cancelled request must not leave its mount behind
            await asyncio.shield(self._let_go(shared, rootfs.scratch))

    async def _let_go(self, shared: _Shared, scratch: Path) -> None:
        async with shared.lock:
            if shared.users:
                return
            try:
                await asyncio.to_thread(self._close, shared, scratch)
            finally:
                # whoever came meanwhile waits for the lock and mounts anew
                if not shared.users:
                    self._shared.pop(scratch, None)

    @contextlib.contextmanager
    def read_only(self, layers: Sequence[Path]) -> Iterator[Path]:
        """Several directories as one, topmost first, without writing to any. Blocks."""
        if len(layers) == 1:
            yield layers[0]
            return
        target = self._new_directory()
        try:
            with explained("mount the layers of the image"):
                mounts.mount_overlay(target, lowers=[str(layer) for layer in layers], read_only=True)
            yield target
        finally:
            self._remove(target)

    def setting(self, upper: Path, layers: Sequence[Path]) -> Setting:
        """Of a scratch's upper directory over an image's layers; blocks where it is entered."""
        return Setting(partial(self.read_only, layers), partial(self.read_only, (upper, *layers)))

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """An empty directory for the time, for what is compared without being mounted."""
        target = self._new_directory()
        try:
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def clean(self) -> None:
        """Take away what a killed daemon left mounted."""
        if self._directory.is_dir():
            for entry in list(os.scandir(self._directory)):
                while mounts.unmount(entry.path):
                    pass
                shutil.rmtree(entry.path, ignore_errors=True)

    def _open(self, shared: _Shared, rootfs: Rootfs, planned: Sequence[PlannedMount]) -> None:
        if shared.path == Path():
            shared.path = self._mount(rootfs)
        for mount in sorted(planned, key=lambda mount: mount.target.count("/")):
            if mount.source is not None and mount.target not in shared.attached:
                attach_mount(shared.path, mount, mount.source)
                shared.attached.add(mount.target)

    def _close(self, shared: _Shared, scratch: Path) -> None:
        if shared.path != Path():
            target, shared.path = shared.path, Path()
            shared.attached.clear()
            self._remove(target)
            forget_volatile(scratch)

    def _mount(self, rootfs: Rootfs) -> Path:
        forget_volatile(rootfs.scratch)
        target = self._new_directory()
        try:
            with explained("mount the container's root file system"):
                mounts.mount_overlay(
                    target,
                    lowers=[str(layer) for layer in rootfs.layers],
                    upper=str(rootfs.scratch / "upper"),
                    work=str(rootfs.scratch / "work"),
                    # without it every unmount would sync the whole file system
                    volatile=True,
                )
        except BaseException:
            self._remove(target)
            raise
        return target

    def _new_directory(self) -> Path:
        target = self._directory / secrets.token_hex(8)
        with explained(f"make {target}"):
            target.mkdir(mode=0o700, parents=True)
        return target

    def _remove(self, target: Path) -> None:
        with explained(f"unmount {target}"):
            while mounts.unmount(target):
                pass
            # rmdir never deletes what a mount that stayed would show
            target.rmdir()


def attach_mount(root_path: Path, mount: PlannedMount, source: Path) -> None:
    """Bind a mount's source into a view, at its target as the container would find it; what is missing is made."""
    with explained(f"show the mount {mount.target}"), Root(root_path) as root:
        is_directory = source.is_dir()
        try:
            target = root.open(mount.target, os.O_PATH)
        except FileNotFoundError:
            if is_directory:
                target = os.dup(root.directory(mount.target, create=True))
            else:
                root.locate(mount.target, create_parents=True)
                os.close(root.open_write(mount.target, 0o644))
                target = root.open(mount.target, os.O_PATH)
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode) != is_directory:
                raise InvalidRequest(f"the mount target {mount.target} is no {'directory' if is_directory else 'file'}")
            tree = mounts.clone_tree(source, recursive=True)
            try:
                if mount.read_only:
                    mounts.set_read_only(tree, recursive=True)
                mounts.attach_at(tree, target)
            finally:
                os.close(tree)
        finally:
            os.close(target)


def forget_volatile(scratch: Path) -> None:
    """Remove overlayfs' mark against mounting a volatile layer again: it guards against power failure, not against us."""
    mark = scratch / "work" / "work" / "incompat" / "volatile"
    if mark.exists():
        shutil.rmtree(mark, ignore_errors=True)


def _shift(root: Path, upper: Path) -> Shift:
    with explained(f"look at {root}"):
        shown, stored = root.stat(), upper.stat()
    return Shift(uid=shown.st_uid - stored.st_uid, gid=shown.st_gid - stored.st_gid)
