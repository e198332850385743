"""Mounts: as a user asks for them, and as they are planned for a runtime."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec


class MountKind(enum.StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    NAMED_PIPE = "npipe"


class MountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One `-v`, `--mount` or `--tmpfs`. `target` is a path in the container's own words (`/data` or `C:\\data`)."""

    kind: MountKind
    target: str
    source: str = ""
    """Host path (bind), volume name (volume; empty makes an anonymous one), or pipe."""
    read_only: bool = False
    propagation: str = ""
    """bind only: private, rprivate, shared, rshared, slave, rslave; empty is rprivate."""
    create_source: bool = False
    """bind only: `-v` creates a missing host directory, `--mount` refuses."""
    no_copy: bool = False
    """volume only: do not fill an empty volume from the image."""
    subpath: str = ""
    driver: str = ""
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int | None = None
    tmpfs_options: tuple[str, ...] = ()
    """Such as noexec, nosuid, uid=1000."""
    from_bind: bool = False
    """Given as `-v` / Binds rather than `--mount` / Mounts: inspect shows it where it came from."""


class PlannedMount(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime mounts: `target` is a path inside the container's Linux root, resolved beneath it by the runtime."""

    target: str
    source: Path | None = None
    """None for a tmpfs."""
    kind: MountKind
    read_only: bool = False
    options: tuple[str, ...] = ()
    """Mount options in fstab's words (nosuid, size=…, mode=…, rprivate)."""
    volume_name: str = ""


class PlannedPipe(msgspec.Struct, frozen=True, kw_only=True):
    """A named pipe `name` of a silo, canonical, mapped to one of the host's: a pipe or a Unix socket, one of the two."""

    name: str
    host_pipe: str = ""
    """Canonical: `\\\\.\\pipe\\name`."""
    socket: Path | None = None


class MountPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `docker inspect`'s Mounts."""

    kind: MountKind
    name: str = ""
    source: str = ""
    target: str
    driver: str = ""
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
