"""Which of Docker's options a Windows container takes. Pure.

Refused is what has no meaning for Windows programs (Docker for Windows refuses it too). Limits that the host's kernel
enforces on any process (memory, processors, process count) are taken, also where Docker for Windows has no such limit.
"""

from __future__ import annotations

from collections.abc import Iterable

from silo.errors import InvalidRequest, Unsupported
from silo.model.container import ContainerConfig, Resources
from silo.model.mount import MountKind, MountRequest
from silo.model.storage_options import parse_scratch_size
from silo.model.windows_pipes import check_target, is_pipe, parse_pipe
from silo.windows.paths import normalize_path

_PRIVATE = ("", "private", "shareable")


MAXIMUM_PIPES = 32
_SYSTEM_DIRECTORIES = frozenset(("c:\\windows", "c:\\windows\\system32"))


def check_options(config: ContainerConfig) -> None:
    """Raises Unsupported (may come one day) or InvalidRequest naming every option that does not apply."""
    parse_scratch_size(config.storage_options)
    for option in config.security.options:
        if option.startswith("credentialspec"):
            raise Unsupported(f"--security-opt {option.partition('=')[0]} is not supported")
    refused = [option for option, given in _foreign_options(config) if given]
    if refused:
        raise InvalidRequest(
            f"Windows containers do not support {', '.join(refused)}", hint="leave the option out, or use a Linux image"
        )


def _foreign_options(config: ContainerConfig) -> Iterable[tuple[str, bool]]:
    security, resources, namespaces = config.security, config.resources, config.namespaces
    yield "--privileged", security.privileged
    yield "--cap-add", bool(security.cap_add)
    yield "--cap-drop", bool(security.cap_drop)
    yield "--security-opt no-new-privileges=false", not security.no_new_privileges
    yield "--security-opt seccomp", security.seccomp != "default"
    yield "--security-opt systempaths", security.masked_paths is not None or security.readonly_paths is not None
    yield "--read-only", config.read_only_root
    yield "--init", config.init
    yield "--sysctl", bool(config.sysctls)
    yield "--group-add", bool(config.group_add)
    yield "--ulimit", bool(resources.ulimits)
    yield "--device", bool(resources.devices)
    yield "--device-cgroup-rule", bool(resources.device_cgroup_rules)
    yield "--shm-size", resources.shm_size_bytes not in (0, Resources().shm_size_bytes)
    yield "--ipc", namespaces.ipc not in _PRIVATE
    yield "--pid", namespaces.pid not in _PRIVATE
    yield "--uts", namespaces.uts not in _PRIVATE
    yield "--cgroupns", namespaces.cgroup not in _PRIVATE
    yield "--tmpfs", any(request.kind is MountKind.TMPFS for request in config.mounts)
    yield "bind-propagation", any(request.propagation for request in config.mounts)


def check_mounts(config: ContainerConfig) -> None:
    """Raises InvalidRequest or Unsupported for a target that cannot be."""
    pipes = [request for request in config.mounts if request.kind is MountKind.NAMED_PIPE]
    if len(pipes) > MAXIMUM_PIPES:
        raise InvalidRequest(f"{len(pipes)} named pipes are mounted: at most {MAXIMUM_PIPES} can be")
    for request in config.mounts:
        if request.kind is MountKind.NAMED_PIPE:
            _check_pipe(request)
            continue
        if is_pipe(request.target):
            raise InvalidRequest(
                f"invalid mount target {request.target}: at a named pipe only a named pipe or a Unix socket can be mounted",
                hint="--mount type=npipe,source=\\\\.\\pipe\\name,target=\\\\.\\pipe\\name",
            )
        if request.target[1:2] != ":" and not request.target.startswith(("\\", "/")):
            raise InvalidRequest(f"invalid mount path: '{request.target}' mount path must be absolute")
        target = normalize_path(request.target)
        if target.lower().rstrip("\\") in _SYSTEM_DIRECTORIES:
            raise InvalidRequest(
                f"invalid mount target {request.target}: Windows itself lies there, and nothing would start",
                hint="mount at a directory below it, or elsewhere",
            )
        if target == "C:\\":
            raise InvalidRequest(
                f"invalid mount target {request.target}: destination path cannot be 'c:' or 'c:\\'",
                hint="mount at a directory below it",
            )


def _check_pipe(request: MountRequest) -> None:
    check_target(parse_pipe(request.target))
    if is_pipe(request.source) or not request.source.startswith("/"):
        parse_pipe(request.source)
    if request.read_only:
        raise InvalidRequest(
            f"invalid mount config for type npipe: {request.target} cannot be read-only",
            hint="leave :ro or readonly out",
        )
