"""What an isolation level consumes (plans) and reports (records). Produced by engine, storage, network and personality."""

from __future__ import annotations

from pathlib import Path

import msgspec

from silo.model.container import Namespaces, Resources
from silo.model.disk_guest import DiskGuest
from silo.model.mount import PlannedMount, PlannedPipe
from silo.model.platform import PersonalityName


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """A container's root file system: read-only `layers` (topmost first) under the container's own `scratch`.

    `scratch` holds `upper/` and `work/`. `volatile`: the container is removed at its end, nothing need be synced.
    `size_bytes`: what the scratch has room for at most, 0 without a limit; a runtime that keeps the files itself makes it so.
    """

    layers: tuple[Path, ...]
    scratch: Path
    read_only: bool = False
    volatile: bool = False
    size_bytes: int = 0


class ScratchOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Who has to own a directory of a container's root before it can start.

    Where it is not so yet, the files `keeps` (uid, source, target) are copied where that user owns the source, then `copies`
    (source, target) are made, owned by `uid` and `gid`, and the directory `path` is given to these. Ids are the container's.
    """

    path: str
    uid: int
    gid: int
    keeps: tuple[tuple[int, str, str], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()


class ProcessPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run inside the container's Linux root. For a resident silo this is pid 1's own program.

    `user` is Docker's: name or uid, optionally `:group`; resolved against the container's own /etc/passwd by the runtime.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    capabilities: tuple[str, ...] = ()
    """With the prefix CAP_."""
    no_new_privileges: bool = True
    console_size: tuple[int, int] | None = None
    """(rows, columns)"""


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A Windows program to start through the resident launcher (docs/launcher-protocol.md)."""

    command_line: str
    directory: str
    environment: tuple[str, ...] = ()
    path: str = ""
    tty: bool = False
    console_size: tuple[int, int] | None = None
    """(rows, columns)"""


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to make and start one container. `launch` is set for Windows (the main program)."""

    id: str
    personality: PersonalityName
    image_id: str
    rootfs: Rootfs
    scratch_owner: ScratchOwner | None = None
    """What is left to do to the root before the first start; for a runtime that keeps the files itself."""
    process: ProcessPlan
    launch: LaunchPlan | None = None
    directory: Path
    """The container's directory under the data root: log, exit.json, scratch lie here."""
    hostname: str
    domainname: str = ""
    mounts: tuple[PlannedMount, ...] = ()
    pipes: tuple[PlannedPipe, ...] = ()
    """Windows, at the level process."""
    namespaces: Namespaces = Namespaces()
    network: str = "private"
    """private (a network namespace of its own), none (a machine without any interface), host, or container:ID."""
    resources: Resources = Resources()
    privileged: bool = False
    seccomp: str = "default"
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    open_stdin: bool = False
    stdin_once: bool = False
    init: bool = False
    """Put a small init as pid 1 (Linux)."""
    keep_log: bool = True
    log_max_bytes: int = 0
    """0 is unbounded; else the keeper keeps at least this much of the newest output, at most twice."""
    auto_remove: bool = False
    vm: str = ""
    """The name of the utility VM to run in; for the level hyperv."""
    parked: bool = False
    """A template of the image holds the container begun, for Windows up to its program's entry point; for the level hyperv."""
    disk: DiskGuest | None = None
    """A disk to boot instead of a utility VM; `process.args`, `mounts` and `vm` are empty then."""
    mac_address: str = ""
    """Of the network card of a machine that boots a disk: it has one before there is a network."""


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A container that is prepared and not yet started; the network plugs into `netns`."""

    id: str
    netns: Path | None
    """None on the host's network."""
    user_namespace: bool
    first_host_uid: int = 0


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """`pid` is the container's pid 1 as the host sees it."""

    pid: int


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended; `exit_code` has 32 bits for Windows; `finished_at` RFC 3339. The keeper writes it as exit.json.

    `error`: what happened if it was not its program that ended (its virtual machine panicked).
    """

    exit_code: int
    finished_at: str
    oom_killed: bool = False
    error: str = ""


class RuntimeState(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime found of a container after the daemon came back. `exit` None and `pid` 0: it never started."""

    id: str
    pid: int = 0
    exit: ExitRecord | None = None
    paused: bool = False


class ExecStreams(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors owned by the caller (close them). With a terminal only `terminal` is set (read and write)."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    terminal: int | None = None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of a container's use of the machine; times in nanoseconds, sizes in bytes."""

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_max_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_inactive_file_bytes: int = 0
    memory_detail: dict[str, int] = {}
    pids: int = 0
    pids_limit: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0


class ProcessTable(msgspec.Struct, frozen=True, kw_only=True):
    """`top`: column titles and one row a process."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class RuntimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `info` says of an isolation level on this host: name, facts as label → value, warnings in sentences."""

    name: str
    version: str = ""
    cgroup_version: str = ""
    cgroup_driver: str = ""
    facts: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
