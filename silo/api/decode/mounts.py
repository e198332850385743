"""`-v`, `--mount` and `--tmpfs`.

A bind is `[source:]target[:options]`. Windows targets bring colons of their own (`C:\\data`), and so may sources for Windows
clients; a single letter before a colon that is followed by a slash of either kind is a drive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from silo.api.decode.wire import HostConfigBody, MountBody
from silo.errors import InvalidRequest, Unsupported
from silo.model.mount import MountKind, MountRequest
from silo.model.windows_pipes import is_pipe

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|[A-Za-z]:$")
_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_SIZE = re.compile(r"(\d+)([kmg]?)b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_mounts(host: HostConfigBody) -> tuple[MountRequest, ...]:
    """All mounts of a request, Binds first."""
    binds = [parse_bind(text, driver=host.VolumeDriver) for text in host.Binds]
    mounts = [parse_mount(body) for body in host.Mounts]
    return (*binds, *mounts, *parse_tmpfs(host.Tmpfs))


def split_bind(text: str) -> list[str]:
    """Split at colons that are not a drive's."""
    parts: list[str] = []
    rest = text
    while rest:
        drive = 2 if _DRIVE.match(rest) else 0
        colon = rest.find(":", drive)
        if colon < 0:
            parts.append(rest)
            return parts
        parts.append(rest[:colon])
        rest = rest[colon + 1 :]
        if not rest:
            parts.append("")
    return parts


def parse_bind(text: str, *, driver: str = "") -> MountRequest:
    """One of Binds. Raises InvalidRequest, Unsupported."""
    parts = split_bind(text)
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidRequest(f"invalid volume specification: '{text}'", hint="source:target[:ro]")
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) == 3 else []
    is_npipe = is_pipe(source) or is_pipe(target)
    is_bind = not is_npipe and (source.startswith("/") or bool(_DRIVE.match(source)))
    kind = MountKind.NAMED_PIPE if is_npipe else MountKind.BIND if is_bind else MountKind.VOLUME
    propagation, read_only, no_copy = "", False, False
    for option in options:
        if option == "ro":
            read_only = True
        elif option in ("rw", "z", "Z", "cached", "delegated", "consistent"):
            # z and Z relabel for SELinux, which Silo does not use: without it they mean nothing to Docker either.
            continue
        elif option in _PROPAGATION and is_bind:
            propagation = option
        elif option == "nocopy" and kind is MountKind.VOLUME:
            no_copy = True
        else:
            raise InvalidRequest(f"invalid mode: {option} in -v {text}")
    return MountRequest(
        kind=kind,
        source=source,
        target=target,
        read_only=read_only,
        propagation=propagation,
        create_source=is_bind,
        no_copy=no_copy,
        driver=driver if kind is MountKind.VOLUME else "",
        from_bind=True,
    )


def parse_mount(body: MountBody) -> MountRequest:
    """One of Mounts."""
    if not body.Target:
        raise InvalidRequest("invalid mount config: field Target must not be empty")
    match body.Type:
        case "bind":
            return _parse_bind_mount(body)
        case "volume":
            options = body.VolumeOptions
            return MountRequest(
                kind=MountKind.VOLUME,
                source=body.Source,
                target=body.Target,
                read_only=body.ReadOnly,
                no_copy=options.NoCopy,
                subpath=options.Subpath,
                driver=options.DriverConfig.Name,
                driver_options=options.DriverConfig.Options,
                labels=options.Labels,
            )
        case "tmpfs":
            if body.Source:
                raise InvalidRequest("invalid mount config for type tmpfs: field Source must not be specified")
            tmpfs = body.TmpfsOptions
            return MountRequest(
                kind=MountKind.TMPFS,
                target=body.Target,
                read_only=body.ReadOnly,
                tmpfs_size_bytes=tmpfs.SizeBytes,
                tmpfs_mode=tmpfs.Mode or None,
                tmpfs_options=tuple("=".join(pair) for pair in tmpfs.Options),
            )
        case "npipe":
            if not body.Source:
                raise InvalidRequest("invalid mount config for type npipe: field Source must not be empty")
            if body.BindOptions.Propagation:
                raise InvalidRequest("invalid mount config for type npipe: field BindOptions must not be specified")
            return MountRequest(
                kind=MountKind.NAMED_PIPE, source=body.Source, target=body.Target, read_only=body.ReadOnly
            )
        case "image" | "cluster":
            raise Unsupported(f"--mount type={body.Type} is not supported")
    raise InvalidRequest(f"invalid mount config: mount type unknown: '{body.Type}'")


def _parse_bind_mount(body: MountBody) -> MountRequest:
    options = body.BindOptions
    if not body.Source:
        raise InvalidRequest("invalid mount config for type bind: field Source must not be empty")
    if options.Propagation and options.Propagation not in _PROPAGATION:
        raise InvalidRequest(f"invalid mount config for type bind: invalid propagation mode: {options.Propagation}")
    if options.NonRecursive:
        raise Unsupported("--mount bind-recursive=disabled is not supported")
    if options.ReadOnlyNonRecursive:
        raise Unsupported("--mount bind-recursive=writable is not supported")
    if options.ReadOnlyForceRecursive:
        raise Unsupported("--mount bind-recursive=readonly is not supported")
    return MountRequest(
        kind=MountKind.BIND,
        source=body.Source,
        target=body.Target,
        read_only=body.ReadOnly,
        propagation=options.Propagation,
        create_source=options.CreateMountpoint,
    )


def parse_tmpfs(untrusted_tmpfs: Mapping[str, str]) -> tuple[MountRequest, ...]:
    """`{"/tmp": "rw,noexec,size=64m,mode=1777"}`."""
    return tuple(_parse_tmpfs(target, text) for target, text in untrusted_tmpfs.items())


def _parse_tmpfs(target: str, text: str) -> MountRequest:
    size, mode, read_only, others = 0, None, False, []
    for option in text.split(",") if text else ():
        name, _, value = option.partition("=")
        if name == "size":
            found = _SIZE.fullmatch(value)
            if found is None:
                raise InvalidRequest(f"invalid tmpfs option {option}", hint="such as size=64m")
            size = int(found[1]) * _FACTORS[found[2].lower()]
        elif name == "mode":
            if not re.fullmatch(r"[0-7]{1,5}", value):
                raise InvalidRequest(f"invalid tmpfs option {option}", hint="an octal mode such as 1777")
            mode = int(value, 8)
        elif name in ("ro", "rw"):
            read_only = name == "ro"
        elif re.fullmatch(r"[a-z_]+(=[A-Za-z0-9%:_-]+)?", option):
            others.append(option)
        else:
            raise InvalidRequest(f"invalid tmpfs option {option!r}")
    return MountRequest(
        kind=MountKind.TMPFS,
        target=target,
        read_only=read_only,
        tmpfs_size_bytes=size,
        tmpfs_mode=mode,
        tmpfs_options=tuple(others),
        from_bind=True,
    )
