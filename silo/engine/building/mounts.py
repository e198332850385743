"""`RUN --mount`: binds of files of the context, a stage or an image, caches kept between builds, and tmpfs.

Secrets and SSH agents come over BuildKit's session, which the classic protocol does not have: one that is not required is left
out, as BuildKit does with one that nobody gave; a required one is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from silo.dockerfile.run_options import MountType, RunMount, Sharing
from silo.engine.building.copying import FindTree, source_path
from silo.engine.building.ports import BuildFiles
from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.model.build import SourceKind
from silo.model.mount import MountKind, MountRequest

CACHE_LABEL = "com.silo.build.cache"
"""On volumes that keep a RUN's caches; its value is the cache's id."""
_CACHE_NAME = "silo-build-cache-"
_CACHE_MODES = (None, 0o755)


class StepMounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a RUN gets mounted; `key` is what the cache knows it by, "" for none."""

    requests: tuple[MountRequest, ...] = ()
    key: str = ""


class CacheLocks:
    """Of caches that only one step may use at a time."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, name: str) -> asyncio.Lock:
        return self._locks[name]


class MountPlanner:
    """Of one RUN; what is mounted stays as long as the stack."""

    def __init__(self, files: BuildFiles, stack: AsyncExitStack, find_tree: FindTree, locks: CacheLocks) -> None:
        self._files = files
        self._stack = stack
        self._find_tree = find_tree
        self._locks = locks

    async def plan(self, mounts: Sequence[RunMount], *, windows: bool) -> StepMounts:
        """Raises InvalidRequest, NotFound, Unsupported."""
        requests: list[MountRequest] = []
        keys: list[str] = []
        for mount in mounts:
            if mount.type is MountType.BIND:
                request, key = await self._bind(mount, windows=windows)
                requests.append(request)
                keys.append(key)
            elif mount.type is MountType.CACHE:
                requests.append(_cache(mount))
            elif mount.type is MountType.TMPFS:
                requests.append(
                    MountRequest(kind=MountKind.TMPFS, target=mount.target, tmpfs_size_bytes=mount.size_bytes)
                )
            elif mount.is_required:
                raise Unsupported(
                    f"--mount=type={mount.type},id={mount.id},required is not supported",
                    details=f"the classic build protocol cannot hand over a {mount.type}",
                    hint="leave `required` out, or use a build argument for what is no secret",
                )
        key = hashlib.sha256("\n".join(keys).encode()).hexdigest() if keys else ""
        return StepMounts(requests=tuple(requests), key=key)

    async def lock_caches(self, mounts: Sequence[RunMount]) -> None:
        """Wait until no other step uses the caches that are not to be shared; in one order, so that two steps never wait for
        one another."""
        alone = (Sharing.LOCKED, Sharing.PRIVATE)
        for name in sorted({mount.id for mount in mounts if mount.type is MountType.CACHE and mount.sharing in alone}):
            await self._stack.enter_async_context(self._locks.of(name))

    async def _bind(self, mount: RunMount, *, windows: bool) -> tuple[MountRequest, str]:
        shown = f"--mount=type=bind,source={mount.source},target={mount.target}"
        if not mount.read_only:
            raise Unsupported(f"{shown},rw is not supported", hint="copy what is to be changed")
        tree, personality = await self._find_tree(mount.source_stage)
        pattern = source_path(mount.source or "/", personality, windows=windows)
        try:
            found = await tree.find(pattern, archives=False)
        except NotFound as error:
            raise NotFound(f"{shown}: {mount.source} is not there") from error
        if len(found) != 1:
            raise InvalidRequest(f"{shown}: the source is not one file or directory")
        item = found[0]
        source = tree.directory / item.path
        if mount.source_stage:
            # An image's root is an overlay, of which the kernel makes no mount with other ids.
            taken = await self._stack.enter_async_context(self._files.take(tree, item))
            source = taken.directory if item.kind is SourceKind.DIRECTORY else taken.directory / item.name
        request = MountRequest(kind=MountKind.BIND, source=str(source), target=mount.target, read_only=True)
        return request, f"{item.kind}:{item.digest} at {mount.target}"


def _cache(mount: RunMount) -> MountRequest:
    if mount.mode not in _CACHE_MODES or mount.uid or mount.gid or mount.source or mount.source_stage:
        raise Unsupported(
            f"--mount=type=cache,target={mount.target}: uid, gid, mode, from and source are not supported",
            hint="a cache is root's, mode 0755, and begins empty",
        )
    name = _CACHE_NAME + hashlib.sha256(mount.id.encode()).hexdigest()[:32]
    return MountRequest(
        kind=MountKind.VOLUME,
        source=name,
        target=mount.target,
        read_only=mount.read_only,
        labels={CACHE_LABEL: mount.id},
        no_copy=True,
    )
