"""A container's files in the run directory: root mounted, sources of bind mounts made ready, config.json written, all undone.

Blocking functions for threads. Everything is mounted in the daemon's private mount namespace; crun clones it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from silo.errors import HostError, InvalidRequest
from silo.host import mounts
from silo.host.durable import host_error
from silo.isolation.bind_sources import clone_source
from silo.isolation.process.record import Paths
from silo.isolation.run_files import write_private
from silo.isolation.spec import DeviceNode, Json, StagedMount
from silo.model.container import Device
from silo.model.mount import MountKind, PlannedMount
from silo.model.runtime import Rootfs

log = logging.getLogger(__name__)

_SHARED_PROPAGATION = ("shared", "rshared")
_PROPAGATION = ("private", "rprivate", "slave", "rslave")


def mount_root(
    bundle: Path, rootfs: Rootfs, user_namespace: int | None, first_uid: int, *, attach_layers: bool
) -> None:
    """Mount the layers under the scratch at `merged`; with a user namespace all are id-mapped into it.

    Raises HostError. The overlay itself is writable even for a read-only root: crun makes mount points in it.
    """
    _forget_volatile(rootfs.scratch)
    with contextlib.ExitStack() as stack:
        try:
            names = [
                stack.enter_context(
                    mounts.overlay_layer(
                        path, user_namespace, bundle / "layers" / str(number) if attach_layers else None
                    )
                )
                for number, path in enumerate((rootfs.scratch, *rootfs.layers))
            ]
            mounts.mount_overlay(
                bundle / "merged",
                lowers=names[1:],
                upper=f"{names[0]}/upper",
                work=f"{names[0]}/work",
                volatile=rootfs.volatile,
                owner=first_uid,
            )
        except OSError as error:
            raise HostError("the container's root file system cannot be mounted", details=str(error)) from error


def _forget_volatile(scratch: Path) -> None:
    """A volatile overlay leaves a mark against being mounted again after a power failure; a restart is none."""
    mark = scratch / "work" / "work" / "incompat" / "volatile"
    if mark.exists():
        shutil.rmtree(mark, ignore_errors=True)


def ensure_directory(root: Path, path: str, owner: int) -> None:
    """Make a working directory that the image lacks, as Docker does; what cannot be made is left to crun to complain of.

    `owner`: the host id of the container's root, as which it is made (0 without a user namespace).
    """
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    so_far = ""
    try:
        with contextlib.suppress(OSError):
            os.close(mounts.open_beneath(parent, path, os.O_PATH | os.O_DIRECTORY))
            return
        with mounts.file_system_identity(owner, owner) if owner else contextlib.nullcontext():
            for part in [word for word in path.split("/") if word]:
                directory = mounts.open_beneath(parent, so_far or "/", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=directory)
                finally:
                    os.close(directory)
                so_far += f"/{part}"
    except OSError as error:
        log.info("working directory %r: %s", path, error)
    finally:
        os.close(parent)


def stage_mounts(
    bundle: Path, planned: Sequence[PlannedMount], user_namespace: int | None
) -> tuple[tuple[StagedMount, ...], tuple[str, ...]]:
    """Sources for crun to bind, and warnings. Raises InvalidRequest (source missing, impossible propagation)."""
    staged: list[StagedMount] = []
    warnings: list[str] = []
    for number, mount in enumerate(planned):
        options = tuple(word for word in mount.options if word)
        if mount.kind is MountKind.TMPFS:
            read_only = ("ro",) if mount.read_only else ()
            staged.append(StagedMount(mount.target, "", mount.kind, (*options, *read_only)))
            continue
        if mount.source is None:
            raise InvalidRequest(f"the mount at {mount.target} has no source")
        if any(word in _SHARED_PROPAGATION for word in options):
            raise InvalidRequest(
                f"mount {mount.target}: shared propagation is not possible, because containers' mounts live in a namespace "
                "of their own",
                hint="use rslave, or rprivate",
            )
        if mount.read_only:
            # a tree with a user namespace is read-only already, as deep as it goes; else crun makes it so
            options = (*options, "ro" if user_namespace is not None else "rro")
        if not any(word in _PROPAGATION for word in options):
            options = (*options, "rprivate")
        source = str(mount.source)
        if user_namespace is not None:
            source, warning = _stage_idmapped(bundle / "mounts" / str(number), mount, user_namespace)
            warnings += [warning] if warning else []
        elif not mount.source.exists():
            raise InvalidRequest(f"bind source path does not exist: {mount.source}")
        staged.append(StagedMount(mount.target, source, mount.kind, options))
    return tuple(staged), tuple(warnings)


def _stage_idmapped(place: Path, mount: PlannedMount, user_namespace: int) -> tuple[str, str]:
    """Mount the source id-mapped at `place`; a file system that cannot is bound as it is, with a warning."""
    tree, is_directory, warning = clone_source(mount, user_namespace)
    try:
        place.parent.mkdir(exist_ok=True)
        if is_directory:
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        mounts.attach(tree, place)
    finally:
        os.close(tree)
    return str(place), warning


def inspect_device(device: Device) -> list[DeviceNode]:
    """The nodes that `--device` names: one, or all of a directory. Raises InvalidRequest."""
    path = Path(device.host_path)
    if path.is_dir():
        children = sorted(child for child in path.iterdir() if _is_device(child))
        nested = (Device(host_path=str(c), container_path=f"{device.container_path}/{c.name}") for c in children)
        nodes = [node for child in nested for node in inspect_device(child)]
        if nodes:
            return nodes
    if not path.exists() or not _is_device(path):
        raise InvalidRequest(f"error gathering device information: {device.host_path} is not a device of this host")
    found = path.stat()
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    mode = stat.S_IMODE(found.st_mode)
    return [DeviceNode(device.container_path or device.host_path, kind, major, minor, mode, found.st_uid, found.st_gid)]


def stage_devices(bundle: Path, nodes: Sequence[DeviceNode], first_uid: int) -> tuple[StagedMount, ...]:
    """Nodes of the container's own for a user namespace: the host's belong to ids that have no name in it."""
    place = bundle / "devices"
    place.mkdir(exist_ok=True)
    mounts.mount("devices", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NOEXEC, "mode=0711,size=64k")
    staged = []
    for number, node in enumerate(nodes):
        own = place / str(number)
        kind = stat.S_IFBLK if node.type == "b" else stat.S_IFCHR
        os.mknod(own, kind | 0o600, os.makedev(node.major, node.minor))
        os.chown(own, first_uid + min(node.uid, 65535), first_uid + min(node.gid, 65535))
        own.chmod(node.mode)
        staged.append(StagedMount(node.path, str(own), MountKind.BIND, ("nosuid", "noexec", "rprivate")))
    return tuple(staged)


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def write_spec(bundle: Path, spec: Json) -> None:
    """Raises NoSpace, HostError."""
    try:
        write_private(bundle / "config.json", msgspec.json.encode(spec))
    except OSError as error:
        raise host_error(error, "cannot write what crun is to run") from error


def remove_bundle(paths: Paths, container_id: str) -> None:
    """Unmount everything beneath the bundle and delete it, with crun's state; idempotent.

    Never recursive: should something still be mounted, its files are not ours to delete, and rmdir refuses.
    """
    bundle = paths.bundle(container_id)
    unmount_bundle(bundle)
    for directory in (bundle, paths.crun_root / container_id):
        _remove_shallow(directory, depth=2)


def _remove_shallow(directory: Path, *, depth: int) -> None:
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        path = Path(entry.path)
        if not entry.is_dir(follow_symlinks=False):
            path.unlink(missing_ok=True)
        elif entry.name == "merged" or depth <= 1:
            path.rmdir()
        else:
            _remove_shallow(path, depth=depth - 1)
    directory.rmdir()


def detach_mounts(bundle: Path) -> int:
    """Take root and staged mounts out of this namespace; the descriptor (O_PATH) that is answered keeps the root usable.

    It also keeps the overlay from being taken down, which may sync a whole disk, in the container's last moments.
    Shared memory stays, for containers that join later.
    """
    root = os.open(bundle / "merged", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.unmount(bundle / "merged")
    _unmount_entries(bundle / "mounts")
    mounts.unmount(bundle / "devices")
    return root


def unmount_bundle(bundle: Path) -> None:
    """Lazily, whatever is mounted beneath a bundle; by name, because reading all mounts of a busy host is slow."""
    mounts.unmount(bundle / "merged")
    for name in ("mounts", "layers"):
        _unmount_entries(bundle / name)
    mounts.unmount(bundle / "devices")
    mounts.unmount(bundle / "shm")


def _unmount_entries(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(directory)):
            while mounts.unmount(entry.path):
                pass
