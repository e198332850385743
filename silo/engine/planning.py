"""From a container's record to the plan that a runtime carries out: root file system, process, mounts, special files."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from silo.engine.disks import card_address
from silo.engine.levels import check_sources
from silo.engine.parts import Parts
from silo.engine.ports import Personality
from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig, ContainerRecord
from silo.model.image import Image
from silo.model.mount import MountKind, MountRequest, PlannedMount, PlannedPipe
from silo.model.network import Endpoint
from silo.model.platform import Isolation
from silo.model.runtime import ContainerPlan, LaunchPlan, ProcessPlan, Rootfs
from silo.model.storage_options import parse_scratch_size
from silo.model.windows_pipes import is_pipe, parse_pipe

_SPECIAL_FILES = ("hosts", "hostname", "resolv.conf")
# A log without a driver exists for attachments only.
_UNKEPT_LOG_BYTES = 1 << 20
_SIZE_SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def hostname_of(record: ContainerRecord) -> str:
    """The configured host name, or the short id."""
    return record.config.hostname or record.id[:12]


def network_of(config: ContainerConfig) -> str:
    """The plan's word for a network mode: host, container:ID, private, or none (of a machine)."""
    mode = config.network_mode
    if mode == "none" and config.isolation is Isolation.HYPERV:
        return mode
    return mode if mode == "host" or mode.startswith("container:") else "private"


def vm_of(record: ContainerRecord, default: str) -> str:
    """The utility VM to run in, "" where there is none."""
    if record.isolation is not Isolation.HYPERV or record.config.disk is not None:
        return ""
    return record.config.vm or default


def scratch_size_on_host(config: ContainerConfig) -> int:
    """Bytes that the writable layer among the host's files may have, 0 unlimited; in a machine its disk has the limit.

    Raises InvalidRequest."""
    size_bytes = parse_scratch_size(config.storage_options)
    return 0 if config.isolation is Isolation.HYPERV else size_bytes


def find_rootfs(
    parts: Parts, record: ContainerRecord, image: Image, *, read_only: bool = False, volatile: bool = False
) -> Rootfs:
    """Layers and scratch, with the scratch's limit."""
    rootfs = parts.storage.rootfs(record.id, image, read_only=read_only, volatile=volatile)
    return msgspec.structs.replace(rootfs, size_bytes=parse_scratch_size(record.config.storage_options))


def log_limit_bytes(config: ContainerConfig) -> int:
    """`--log-opt max-size`, 0 when unbounded. Raises InvalidRequest."""
    if config.log.driver == "none":
        return _UNKEPT_LOG_BYTES
    text = config.log.options.get("max-size", "").lower().removesuffix("b")
    if not text or text == "-1":
        return 0
    factor = _SIZE_SUFFIXES.get(text[-1], 1)
    digits = text[:-1] if text[-1] in _SIZE_SUFFIXES else text
    if not digits.isdigit() or int(digits) == 0:
        raise InvalidRequest(f"--log-opt max-size={text} is not a size", hint="such as 10m")
    return int(digits) * factor


async def plan_container(parts: Parts, record: ContainerRecord, image: Image) -> ContainerPlan:
    """Everything the runtime needs; makes the sources of mounts (volumes are filled, missing bind folders created)."""
    config = record.config
    personality = parts.personality(record.personality)
    directory = parts.storage.container_directory(record.id)
    # A machine's disk is read after its end, so it has to be written; here the files are where they are read.
    volatile = config.auto_remove or (config.build_step and record.isolation is Isolation.PROCESS)
    rootfs = find_rootfs(parts, record, image, read_only=config.read_only_root, volatile=volatile)
    owner = personality.scratch_owner(config, image)
    if owner is not None and not parts.runtime(record.isolation).keeps_files:
        await parts.storage.own_scratch(rootfs, owner)
        owner = None
    hostname = hostname_of(record)
    process, launch = _main_program(personality, record, image)
    mounts = [
        await parts.storage.plan_mount(request, personality.map_path(request.target), fill_from=rootfs)
        for request in config.mounts
        if request.kind is not MountKind.NAMED_PIPE
    ]
    check_sources(record.isolation, mounts)
    pipes = tuple(plan_pipe(request) for request in config.mounts if request.kind is MountKind.NAMED_PIPE)
    special = write_special_files(record, directory, endpoints=(), resolver=None)
    taken = {mount.target for mount in mounts}
    if config.disk is None:
        mounts += [mount for mount in personality.plan_special_mounts(special) if mount.target not in taken]
    security = config.security
    masked, readonly = security.masked_paths, security.readonly_paths
    unconfined = security.privileged
    return ContainerPlan(
        id=record.id,
        personality=record.personality,
        image_id=record.image_id,
        rootfs=rootfs,
        scratch_owner=owner,
        process=process,
        launch=launch,
        directory=directory,
        hostname=hostname,
        domainname=config.domainname,
        mounts=_in_order(mounts),
        pipes=pipes,
        namespaces=config.namespaces,
        network=network_of(config),
        resources=personality.limits(config.resources, config.isolation),
        privileged=security.privileged,
        seccomp="unconfined" if unconfined else security.seccomp,
        masked_paths=() if unconfined else _or_default(masked, personality.default_masked_paths()),
        readonly_paths=() if unconfined else _or_default(readonly, personality.default_readonly_paths()),
        sysctls=config.sysctls,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        init=config.init,
        keep_log=config.log.driver != "none",
        log_max_bytes=log_limit_bytes(config),
        auto_remove=config.auto_remove,
        vm=vm_of(record, parts.vm_image),
        parked=config.parked,
        disk=config.disk,
        mac_address=card_address(record),
    )


def _main_program(
    personality: Personality, record: ContainerRecord, image: Image
) -> tuple[ProcessPlan, LaunchPlan | None]:
    config = record.config
    if config.disk is not None:
        return ProcessPlan(args=(), tty=config.tty, console_size=config.console_size), None
    return personality.plan_main(config, image, hostname=hostname_of(record), container_id=record.id)


def _or_default(given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if given is None else given


def _in_order(mounts: Sequence[PlannedMount]) -> tuple[PlannedMount, ...]:
    """Parents before children, so that a mount at /a does not hide the one at /a/b."""
    return tuple(sorted(mounts, key=lambda mount: mount.target.count("/") if mount.target != "/" else 0))


def mount_place(request: MountRequest, personality: Personality) -> str:
    """Where it is mounted: a path in the container's Linux root, or a pipe's canonical name. Raises InvalidRequest."""
    if request.kind is MountKind.NAMED_PIPE:
        return parse_pipe(request.target)
    return personality.map_path(request.target).rstrip("/")


def plan_pipe(request: MountRequest) -> PlannedPipe:
    """Raises InvalidRequest for a source that is neither a pipe nor a socket of this host."""
    name = parse_pipe(request.target)
    if is_pipe(request.source) or not request.source.startswith("/"):
        return PlannedPipe(name=name, host_pipe=parse_pipe(request.source))
    path, error = Path(request.source), ""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            error = "it is not a socket"
    except FileNotFoundError:
        error = "it does not exist"
    except (OSError, ValueError) as failure:
        error = str(failure)
    if error:
        raise InvalidRequest(
            f"invalid mount config for type npipe: {request.source} is no Unix socket of this host",
            details=error,
            hint="start the service first, or name a pipe: \\\\.\\pipe\\name",
        )
    return PlannedPipe(name=name, socket=path)


def check_mount_targets(config: ContainerConfig, personality: Personality) -> None:
    """Raises InvalidRequest for a target that is not a path in the container, is its root, or is given twice."""
    seen: dict[str, str] = {}
    for request in config.mounts:
        if request.kind is MountKind.NAMED_PIPE:
            plan_pipe(request)
        target = mount_place(request, personality)
        if not target:
            raise InvalidRequest(f"invalid mount target {request.target}", hint="a mount cannot replace the root")
        key = target if personality.name == "linux" else target.lower()
        if key in seen:
            raise InvalidRequest(f"Duplicate mount point: {request.target}")
        seen[key] = request.target
        if request.kind is MountKind.BIND and not Path(request.source).is_absolute():
            raise InvalidRequest(
                f"invalid mount path: '{request.source}' mount path must be absolute", hint="or a volume's name"
            )


def write_special_files(
    record: ContainerRecord, directory: Path, *, endpoints: Sequence[Endpoint], resolver: str | None
) -> dict[str, Path]:
    """(Re)write hosts, hostname and resolv.conf in place: they are mounted, so the inode stays. Answers name → path."""
    config = record.config
    name = hostname_of(record)
    texts = {
        "hostname": f"{name}\n",
        "hosts": _hosts_text(record, name, endpoints),
        "resolv.conf": _resolver_text(config, resolver),
    }
    paths = {}
    for file_name in _SPECIAL_FILES:
        path = directory / file_name
        path.write_text(texts[file_name])
        paths[file_name] = path
    return paths


def _hosts_text(record: ContainerRecord, name: str, endpoints: Sequence[Endpoint]) -> str:
    config = record.config
    if config.network_mode == "host":
        base = Path("/etc/hosts").read_text() if Path("/etc/hosts").exists() else "127.0.0.1\tlocalhost\n"
    else:
        base = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    lines = [base.rstrip("\n")]
    gateway = endpoints[0].gateway if endpoints else ""
    for entry in config.extra_hosts:
        host, _, address = entry.replace("=", ":", 1).partition(":")
        if address == "host-gateway":
            address = gateway or "127.0.0.1"
        lines.append(f"{address}\t{host}")
    own = f"{name}.{config.domainname} {name}" if config.domainname else name
    lines += [f"{endpoint.ipv4_address}\t{own}" for endpoint in endpoints if endpoint.ipv4_address]
    return "\n".join(lines) + "\n"


def _resolver_text(config: ContainerConfig, resolver: str | None) -> str:
    servers = list(config.dns)
    search, options = list(config.dns_search), list(config.dns_options)
    if not servers and resolver:
        servers = [resolver]
    host = Path("/etc/resolv.conf").read_text().splitlines() if Path("/etc/resolv.conf").exists() else []
    if not servers:
        servers = [line.split()[1] for line in host if line.startswith("nameserver ") and len(line.split()) > 1]
    if not search:
        search = next((line.split()[1:] for line in host if line.startswith(("search ", "domain "))), [])
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"
