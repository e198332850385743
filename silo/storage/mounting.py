"""Sources of mounts: a request in a user's words becomes a source that exists, or a clear refusal."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from silo.errors import HostError, InvalidRequest, Unsupported
from silo.host.beneath import Root
from silo.model.mount import MountKind, MountRequest, PlannedMount
from silo.model.runtime import Rootfs
from silo.model.windows_paths import is_on_drive, resolve_case
from silo.storage.failures import explained
from silo.storage.filling import fill_volume
from silo.storage.tmpfs import tmpfs_options
from silo.storage.views import Views
from silo.storage.volumes import Volumes

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def plan_mount(
    request: MountRequest, target: str, fill_from: Rootfs | None, *, volumes: Volumes, views: Views
) -> PlannedMount:
    """Check and make the source. Blocks. Raises InvalidRequest, Unsupported, NotFound, HostError, NoSpace."""
    if fill_from is not None and is_on_drive(target):
        with views.read_only((fill_from.scratch / "upper", *fill_from.layers)) as root, Root(root) as opened:
            target = resolve_case(target, lambda directory: _names(opened, directory))
    if request.subpath and request.kind is not MountKind.VOLUME:
        raise InvalidRequest(f"a subpath is only possible for volumes, not for the mount at {request.target}")
    match request.kind:
        case MountKind.BIND:
            return _plan_bind(request, target)
        case MountKind.TMPFS:
            options = tmpfs_options(
                words=request.tmpfs_options, size_bytes=request.tmpfs_size_bytes, mode=request.tmpfs_mode
            )
            return PlannedMount(target=target, kind=MountKind.TMPFS, read_only=request.read_only, options=options.all)
        case MountKind.VOLUME:
            return _plan_volume(request, target, fill_from, volumes, views)
        case MountKind.NAMED_PIPE:
            raise Unsupported(f"mounting named pipes is not supported ({request.target})")


def _plan_bind(request: MountRequest, target: str) -> PlannedMount:
    propagation = request.propagation or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidRequest(f"invalid propagation mode: {propagation}", hint=f"one of {', '.join(_PROPAGATION)}")
    source = Path(request.source)
    if not source.is_absolute() or "\0" in request.source:
        raise InvalidRequest(f"invalid mount path: '{request.source}' mount path must be absolute")
    try:
        source.stat()
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise HostError(f"cannot look at the bind source {source}", details=str(error)) from error
        if not request.create_source:
            raise InvalidRequest(
                f'invalid mount config for type "bind": bind source path does not exist: {source}'
            ) from None
        with explained(f"make the bind source {source}"):
            source.mkdir(parents=True, exist_ok=True)
    return PlannedMount(
        target=target, source=source, kind=MountKind.BIND, read_only=request.read_only, options=(propagation,)
    )


def _plan_volume(
    request: MountRequest, target: str, fill_from: Rootfs | None, volumes: Volumes, views: Views
) -> PlannedMount:
    if request.subpath:
        raise Unsupported("volume-subpath is not supported", hint="mount the whole volume")
    with volumes.filling:
        location = volumes.open(request.source)
        if fill_from is not None and not request.no_copy:
            with explained(f"look into the volume {request.source}"):
                is_empty = location.is_dir() and not any(os.scandir(location))
            if is_empty or (location.parent / ".ready").exists():
                with views.read_only((fill_from.scratch / "upper", *fill_from.layers)) as root:
                    fill_volume(location, root, target, staged=volumes.is_plain(request.source))
    return PlannedMount(
        target=target,
        source=location,
        kind=MountKind.VOLUME,
        read_only=request.read_only or volumes.read_only(request.source),
        options=("rprivate",),
        volume_name=request.source,
    )


def _names(root: Root, directory: str) -> list[str]:
    try:
        return root.names(directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
