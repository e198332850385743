"""Containers: what a user asked for (ContainerConfig), what is known of one (ContainerRecord), its state."""

from __future__ import annotations

import enum

import msgspec

from silo.model.disk_guest import DiskGuest
from silo.model.image import Healthcheck
from silo.model.mount import MountPoint, MountRequest
from silo.model.network import Endpoint, EndpointRequest, PortBinding
from silo.model.platform import Isolation, PersonalityName


class Status(enum.StrEnum):
    """Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Ulimit(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    soft: int
    hard: int


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A host device for the container; `permissions` of the letters r, w, m."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Limits; 0 (or empty) is none. A personality turns Windows' words into the kernel's (Personality.limits)."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    """Memory plus swap; -1 is unlimited."""
    memory_reservation_bytes: int = 0
    nano_cpus: int = 0
    """Thousand-millionths of a processor: `--cpus 1.5` is 1,500,000,000."""
    cpu_shares: int = 0
    """The kernel's weight (2 to 262144, usually 1024); of a Windows container 1 to 10000, usually 5000."""
    cpu_count: int = 0
    """Windows only: `--cpu-count`."""
    cpu_percent: int = 0
    """Windows only: `--cpu-percent`, of the host's processors."""
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    """0 or -1 is unlimited."""
    blkio_weight: int = 0
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    memory_swappiness: int | None = None
    shm_size_bytes: int = 64 * 1024 * 1024
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What a container may do to the kernel."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    """Without the prefix CAP_, upper case; ALL is all."""
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = True
    """Stricter than Docker: on unless `--security-opt no-new-privileges=false`."""
    seccomp: str = "default"
    """default, unconfined, or the text of a profile in Docker's JSON format."""
    masked_paths: tuple[str, ...] | None = None
    """None is the personality's default; () with `--security-opt systempaths=unconfined`."""
    readonly_paths: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    """`--security-opt` as given, for inspect."""


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """Modes as Docker writes them: "" is private; "host"; "container:ID" (ids resolved, never names); ipc also none, shareable."""

    user: str = ""
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    cgroup: str = ""


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: no, always, unless-stopped, on-failure."""

    name: str = "no"
    maximum_retries: int = 0


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`driver`: local (Silo's own; json-file is an accepted alias and shown as given) or none. Sizes bound the log on disk."""

    driver: str = "json-file"
    options: dict[str, str] = {}


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A request to create a container, checked for form; None means that the image decides."""

    image: str
    """The reference as given."""
    platform: str = ""
    hostname: str = ""
    domainname: str = ""
    user: str | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    env: tuple[str, ...] = ()
    """NAME=VALUE, or NAME alone to remove one of the image's."""
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    healthcheck: Healthcheck | None = None
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    """Anonymous volumes (`-v /data`)."""
    args_escaped: bool | None = None
    shell: tuple[str, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    publish_all: bool = False
    network_mode: str = "default"
    """default, bridge, none, host, container:ID, or a network's name."""
    endpoints: tuple[EndpointRequest, ...] = ()
    mac_address: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """name:address"""
    restart: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    read_only_root: bool = False
    init: bool = False
    isolation: Isolation = Isolation.PROCESS
    vm: str = ""
    """The name of the utility VM (hyperv only), as a label of the container or the image says; "": the daemon's default."""
    parked: bool = False
    """Clone it from a template that holds it begun (hyperv only), as a label of the container or the image says."""
    build_step: bool = False
    """A step of a build: its files are committed or thrown away, never synced; the image's volumes are not mounted."""
    disk: DiskGuest | None = None
    """A whole disk to boot instead of an image (hyperv only); `image` then is its path."""
    resources: Resources = Resources()
    security: Security = Security()
    namespaces: Namespaces = Namespaces()
    group_add: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    log: LogConfig = LogConfig()
    storage_options: dict[str, str] = {}
    runtime: str = ""
    annotations: dict[str, str] = {}
    console_size: tuple[int, int] | None = None
    """(rows, columns) of the terminal at start."""
    container_id_file: str = ""


class HealthResult(msgspec.Struct, frozen=True, kw_only=True):
    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: starting, healthy, unhealthy."""

    status: str
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Times are RFC 3339 with nanoseconds, UTC; the zero time is 0001-01-01T00:00:00Z."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = "0001-01-01T00:00:00Z"
    finished_at: str = "0001-01-01T00:00:00Z"
    restart_count: int = 0
    stopped_by_user: bool = False
    """A restart policy does not bring such a container back (unless-stopped: not even after a daemon start)."""
    health: Health | None = None
    held: bool = False
    """Paused by the daemon for a moment, while it reads the files: goes on whatever becomes of the daemon."""


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that survives of a container; one row in the state."""

    id: str
    name: str
    created: str
    config: ContainerConfig
    image_id: str
    personality: PersonalityName
    isolation: Isolation
    state: State = State()
    endpoints: tuple[Endpoint, ...] = ()
    bindings: tuple[PortBinding, ...] = ()
    """Ports as really published."""
    mounts: tuple[MountPoint, ...] = ()
    path: str = ""
    """The resolved program and its arguments, for ps and inspect."""
    args: tuple[str, ...] = ()
