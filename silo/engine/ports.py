"""The ports of the engine: what it needs of isolation levels, personalities, images, networks and storage.

Terms. A *plan* is frozen data that says what shall be; a port's method makes it so or raises and leaves nothing behind. All
`async` methods may be cancelled; then they undo what they did. Ids are container ids of 64 hex digits.

Life of a container at a Runtime: `prepare` (rootfs mounted, namespaces and cgroup made, nothing runs) → `start` → it ends
(`on_exit` is called exactly once for each start, also when it ended while the daemon was away, then from `recover`) → `release`
(everything but the container's directory is gone). `release` is idempotent and right in every state, also half-made ones.

    sandbox = await runtime.prepare(plan)
    await networks.connect(plan.id, sandbox, requests)
    started = await runtime.start(plan.id)
    ...
    await runtime.release(plan.id)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from silo.model.container import ContainerConfig, Resources
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.mount import MountRequest, PlannedMount
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, NetworkStatistics, PortBinding
from silo.model.platform import Isolation, PersonalityName
from silo.model.runtime import (
    ContainerPlan,
    ExecStreams,
    ExitRecord,
    LaunchPlan,
    ProcessPlan,
    ProcessTable,
    Rootfs,
    RuntimeReport,
    RuntimeState,
    Sandbox,
    ScratchOwner,
    Started,
    Statistics,
)

Progress = Callable[[str, str, int, int], None]
"""Called with (id, status, done, total): id of the item (a layer, may be ""), Docker's status words, bytes."""


class RuntimeListener(Protocol):
    """The engine's ear; called on the event loop."""

    def on_exit(self, container_id: str, record: ExitRecord) -> None: ...
    def on_output(self, container_id: str) -> None:
        """The container's log has grown."""

    def on_out_of_memory(self, container_id: str) -> None: ...


class RunningExec(Protocol):
    """A program started by exec. `streams` belong to the caller."""

    pid: int
    streams: ExecStreams

    async def wait(self) -> int:
        """The exit code (32 bits for Windows); 137 when the container ended under it."""

    async def resize(self, rows: int, columns: int) -> None: ...
    async def signal(self, signal: int) -> None:
        """To this program only; one that has ended is not an error."""


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `docker diff`: kind 0 modified, 1 added, 2 deleted; `path` in the container's words."""

    kind: int
    path: str


class RootFiles(Protocol):
    """One container's files for as long as the context that gave this out is open; one call at a time.

    Paths are absolute POSIX paths in the container's Linux root, resolved beneath it whatever links lie there; a `/.` or `/` at
    the end has `docker cp`'s meaning. What an iterator yields must be read, or the iterator closed, before the context ends.
    """

    async def stat(self, path: str) -> dict[str, object]:
        """`docker cp`'s stat: name, size, mode, mtime, linkTarget. Raises NotFound."""

    async def read(self, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        """`docker cp` out: the path's stat and a tar. Raises NotFound."""

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        """`docker cp` in: extract a tar beneath `path`; hostile entries raise InvalidRequest and nothing lies outside."""

    def export(self) -> AsyncIterator[bytes]:
        """The whole root as a tar, without what is mounted on it."""

    def layer(self) -> AsyncIterator[bytes]:
        """What differs from the image, as an uncompressed OCI layer (whiteouts, opaque directories)."""


class Runtime(Protocol):
    """An isolation level. Both personalities run on every level; all implementations pass tests/contract."""

    isolation: Isolation
    keeps_files: bool
    """Containers' files lie where only the runtime reaches them (a VM's disk), not in the scratch of the port Storage. Such a
    runtime answers `open_files`, and gives `ContainerPlan.scratch_owner` what it names."""

    async def open(self, listener: RuntimeListener) -> None:
        """Probe the host, start or join what outlives the daemon."""

    async def close(self) -> None:
        """Leave running containers running."""

    def report(self) -> RuntimeReport: ...

    async def recover(self, ids: Sequence[str]) -> Mapping[str, RuntimeState]:
        """What became of the containers that the state knows as alive; anything else found is orphaned and cleaned up."""

    async def prepare(self, plan: ContainerPlan) -> Sandbox: ...
    async def start(self, container_id: str) -> Started:
        """Raises ProcessStartFailed when the program cannot be executed (the container is then released by the caller)."""

    async def release(self, container_id: str) -> None: ...
    async def signal(self, container_id: str, signal: int) -> None:
        """To the main program. For Windows SIGKILL terminates, SIGINT is Ctrl-C, SIGWINCH and the like are nothing,
        any other is CTRL_SHUTDOWN_EVENT."""

    async def resize(self, container_id: str, rows: int, columns: int) -> None: ...
    async def pause(self, container_id: str) -> None: ...
    async def unpause(self, container_id: str) -> None: ...
    async def update(self, container_id: str, resources: Resources) -> None: ...
    async def statistics(self, container_id: str) -> Statistics: ...
    async def processes(self, container_id: str, ps_args: str) -> ProcessTable: ...
    async def open_stdin(self, container_id: str) -> int:
        """A new descriptor (nonblocking) that writes to the main program's input or terminal; the caller closes it."""

    async def close_stdin(self, container_id: str) -> None:
        """End of file for the program once every descriptor given out is closed."""

    async def exec(
        self, container_id: str, program: ProcessPlan | LaunchPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> RunningExec: ...

    async def save(self, container_id: str) -> None:
        """What the container keeps in memory of its files (a silo's registry) is in them afterwards; nothing while it is paused.
        Raises GuestError, Conflict (not running)."""

    async def update_network(self, container_id: str) -> None:
        """The interfaces in a running container's network namespace have changed, or its files hosts and resolv.conf."""

    def root_path(self, container_id: str) -> Path | None:
        """Where the prepared or running container's root is visible to the daemon (None if it is not, e.g. in a VM)."""

    def open_files(
        self, container_id: str, rootfs: Rootfs, planned: Sequence[PlannedMount]
    ) -> AbstractAsyncContextManager[RootFiles]:
        """The files of a container in whatever state it is, if `keeps_files`; Unsupported otherwise.

        `planned`: the volumes and binds of one that does not run, to be shown in `stat`, `read` and `write`; a running one's
        are there. A container that starts or ends meanwhile may make the calls raise Conflict.
        """


class Personality(Protocol):
    """Whose programs: turns a user's words into plans. Pure; no I/O."""

    name: PersonalityName

    def check(self, config: ContainerConfig, image: Image) -> tuple[str, ...]:
        """Refuse what this personality cannot do (InvalidRequest, Unsupported); answers warnings."""

    def check_resources(self, resources: Resources, isolation: Isolation) -> tuple[str, ...]:
        """The part of `check` that an update needs as well."""

    def limits(self, resources: Resources, isolation: Isolation) -> Resources:
        """A user's limits as the kernel has them, for plans and updates of a running container."""

    def plan_main(
        self, config: ContainerConfig, image: Image, *, hostname: str, container_id: str
    ) -> tuple[ProcessPlan, LaunchPlan | None]: ...

    def scratch_owner(self, config: ContainerConfig, image: Image) -> ScratchOwner | None:
        """Whom the scratch must belong to before the first start (Wine refuses a prefix of another user)."""

    def describe_command(self, config: ContainerConfig, image: Image) -> tuple[str, tuple[str, ...]]:
        """(path, args) as `inspect` shows them."""

    def plan_exec(
        self, config: ContainerConfig, image: Image, request: ExecRequest, *, hostname: str
    ) -> ProcessPlan | LaunchPlan: ...

    def map_path(self, path: str, *, working_dir: str = "") -> str:
        """A path in the container's words → absolute POSIX path in its Linux root (`C:\\data` → /…/drive_c/data)."""

    def plan_special_mounts(self, files: Mapping[str, Path]) -> tuple[PlannedMount, ...]:
        """Where `hosts`, `hostname`, `resolv.conf` (keys) go."""

    def default_masked_paths(self) -> tuple[str, ...]: ...
    def default_readonly_paths(self) -> tuple[str, ...]: ...
    def default_stop_signal(self) -> int: ...
    def default_stop_timeout_s(self) -> int: ...
    def health_command(self, test: tuple[str, ...], image: Image) -> tuple[str, ...]:
        """("CMD-SHELL", text) → the program and arguments to execute."""


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`docker exec`."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`docker pull`; `platform` empty means linux/amd64 first, then windows/amd64. Credentials are used and never stored."""

    reference: str
    platform: str = ""
    username: str = ""
    password: str = ""
    insecure: bool = False
    base_layers: int | None = None
    """A user's word for how many of the lowest layers are Windows' base, where the image does not tell."""
    silo_base: bool = False
    """Push with Silo's base as it is, for use by Silo only."""


class ImageChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an image: `action` is untagged or deleted."""

    action: str
    subject: str


class UnpackedLayer(Protocol):
    """How far the unpacking of a layer has come."""

    entries: int
    file_bytes: int
    warnings: list[str]


class WindowsLayers(Protocol):
    """The on-registry format of Windows layers (Files/, Hives/), which container images for Windows hosts are made of. Blocks.

    Directories given as `below` are those of the lower layers, topmost first, as a container's root shows them.
    """

    def unpack(
        self, target: Path, chunks: Iterator[bytes], below: Sequence[Path], *, check: Callable[[UnpackedLayer], None]
    ) -> UnpackedLayer:
        """Fill an empty directory with what a container sees of the layer, its registry merged into that of the layers below.

        `chunks`: the uncompressed tar; what follows its end may be left unread.
        `check` is called now and then with what there is so far, and may raise. Raises InvalidRequest naming the member.
        """

    def convert(self, chunks: Iterator[bytes], below: Sequence[Path]) -> Iterator[bytes]:
        """A container's changes (an ordinary uncompressed layer) → an uncompressed layer of this format. Raises InvalidRequest."""


class ImageStore(Protocol):
    """Images on this machine. References are Docker's: `name[:tag][@digest]`, ids and unique id prefixes."""

    def find(self, reference: str, *, platform: str = "") -> Image | None: ...
    def get(self, reference: str, *, platform: str = "") -> Image:
        """Raises ImageNotFound, InvalidRequest (malformed or ambiguous)."""

    def all(self) -> tuple[Image, ...]: ...
    async def pull(self, request: PullRequest, progress: Progress) -> Image: ...
    async def push(self, request: PullRequest, progress: Progress) -> str:
        """Answers the manifest's digest."""

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress, *, base_layers: int | None = None
    ) -> tuple[Image, ...]:
        """A tar of `docker save` or of an OCI layout, maybe compressed. `base_layers`: see PullRequest."""

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]: ...
    async def import_rootfs(
        self, chunks: AsyncIterator[bytes], *, reference: str, platform: str, message: str, config: ImageConfig
    ) -> Image: ...
    async def import_layout(self, path: Path, *, reference: str) -> Image:
        """An OCI layout directory made by Silo itself (the Windows base)."""

    async def commit(
        self,
        base: Image,
        layer: AsyncIterator[bytes] | None,
        *,
        reference: str,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> Image:
        """A new image: `base` plus one layer (an uncompressed OCI layer tar; None changes metadata only)."""

    def tag(self, reference: str, new_reference: str) -> None: ...
    def remove(self, reference: str, *, force: bool, in_use: Mapping[str, str]) -> tuple[ImageChange, ...]:
        """`in_use`: image id → a container that uses it. Raises Conflict."""

    def collect_garbage(self) -> int:
        """Delete blobs and layers no image names (half-made ones too); answers the bytes freed."""

    def disk_usage_bytes(self) -> int: ...


class Networks(Protocol):
    """Networks of containers."""

    async def open(self) -> None:
        """Probe, make the default network, adopt what is there."""

    async def close(self) -> None: ...
    def report(self) -> dict[str, str]: ...
    def all(self) -> tuple[NetworkConfig, ...]: ...
    def get(self, reference: str) -> NetworkConfig:
        """By name, id or unique id prefix. Raises NotFound."""

    async def create(self, config: NetworkConfig) -> NetworkConfig:
        """Empty subnet, gateway and bridge are chosen. Raises Conflict (name, overlap), InvalidRequest, Unsupported."""

    async def remove(self, reference: str) -> NetworkConfig:
        """Raises Conflict while endpoints are on it or it is predefined."""

    async def connect(
        self,
        container_id: str,
        sandbox: Sandbox,
        requests: Sequence[EndpointRequest],
        *,
        dns_names: Sequence[str],
    ) -> tuple[Endpoint, ...]:
        """Plug a sandbox in, in order (eth0, eth1, …); the first gives the default route. Works on running containers too."""

    async def disconnect(self, container_id: str, network_id: str, *, sandbox: Sandbox | None = None) -> None:
        """`sandbox`, where it runs, so that the default route can move to another endpoint."""

    def rename(self, container_id: str, dns_names: Sequence[str]) -> tuple[Endpoint, ...]:
        """New names on all its networks; answers its endpoints."""

    async def publish(
        self, container_id: str, bindings: Sequence[PortBinding], endpoints: Sequence[Endpoint]
    ) -> tuple[PortBinding, ...]:
        """Open ports on the host; host_port 0 is chosen. Raises Conflict naming the taken port and by whom."""

    async def release(self, container_id: str) -> None:
        """Addresses, names, ports, devices of a container; idempotent."""

    async def recover(
        self, alive: Mapping[str, tuple[Endpoint, ...]], bindings: Mapping[str, tuple[PortBinding, ...]]
    ) -> None:
        """Rebuild addresses, names and published ports of containers that live; forget all others."""

    def resolver_address(self, endpoints: Sequence[Endpoint]) -> str | None:
        """The DNS server to write into resolv.conf; None: use the host's servers."""

    async def statistics(self, container_id: str) -> tuple[NetworkStatistics, ...]: ...


class VolumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    created: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class Storage(Protocol):
    """Scratch layers and volumes. Synchronous methods are fast; others run in threads."""

    def container_directory(self, container_id: str) -> Path: ...
    def create_scratch(self, container_id: str, *, size_bytes: int = 0) -> None:
        """Its directory and a layer for `size_bytes` (0: no limit); raises NoSpace, Conflict, Unsupported (no limit here)."""

    def discard_scratch(self, container_id: str) -> None: ...
    async def remove_scratch(self, container_id: str) -> None: ...
    def known_containers(self) -> tuple[str, ...]:
        """Directories on disk, also of containers the state does not know (the engine removes those)."""

    async def image_files(self, image: Image, paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        """Whole files of an image by their absolute paths; what is missing or no file is left out. Raises InvalidRequest for one
        that is larger."""

    def rootfs(self, container_id: str, image: Image, *, read_only: bool, volatile: bool) -> Rootfs: ...
    def mounted(
        self, rootfs: Rootfs, *, running_root: Path | None, planned: Sequence[PlannedMount] = ()
    ) -> AbstractAsyncContextManager[Path]:
        """A directory that shows the container's root: the running one's, or a private overlay mount for the time, with
        the `planned` mounts on it."""

    async def own_scratch(self, rootfs: Rootfs, owner: ScratchOwner) -> None:
        """Make a user of the container the owner of what a silo needs to own; idempotent."""

    async def changes(self, container_id: str, image: Image) -> tuple[FileChange, ...]: ...
    async def layer_changes(self, image: Image, chunks: AsyncIterator[bytes]) -> tuple[FileChange, ...]:
        """`changes` of a container whose scratch comes as an uncompressed OCI layer, which is untrusted."""

    def layer_tar(self, container_id: str) -> AsyncIterator[bytes]:
        """The scratch as an uncompressed OCI layer (whiteouts, opaque directories)."""

    def export_tar(self, root: Path) -> AsyncIterator[bytes]: ...
    async def read_archive(self, root: Path, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        """`docker cp` out: the path's stat (name, size, mode, mtime, linkTarget) and a tar; resolved beneath root."""

    async def stat_archive(self, root: Path, path: str) -> dict[str, object]: ...
    async def write_archive(
        self, root: Path, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        """`docker cp` in: extract a tar beneath root/path; hostile entries raise InvalidRequest and nothing lies outside."""

    def scratch_size_bytes(self, container_id: str) -> int: ...
    def create_volume(self, info: VolumeInfo) -> VolumeInfo:
        """Idempotent for the same driver and options, else Conflict; Unsupported driver raises InvalidRequest."""

    def volume(self, name: str) -> VolumeInfo: ...
    def volumes(self) -> tuple[VolumeInfo, ...]: ...
    def remove_volume(self, name: str) -> None: ...
    def volume_size_bytes(self, name: str) -> int: ...
    async def plan_mount(self, request: MountRequest, target: str, *, fill_from: Rootfs | None) -> PlannedMount:
        """Check and make the source of a mount; an empty named volume is filled from the image's `target`."""


class RegistrySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a registry comes from: a silo's files by name (`system.reg`, `user.reg`, `userdef.reg`), or one hive."""

    files: dict[str, bytes]
    hive: str = ""
    """The file name of a hive, which says where it belongs; `files` holds it alone."""


class RegistryViewer(Protocol):
    """What a person sees of a Windows registry. Pure; blocks for a moment.

    `key` is in the user's words (`HKLM\\Software\\App`), empty for all. Everything raises InvalidRequest (for what is damaged,
    too) and NotFound.
    """

    def query(self, source: RegistrySource, key: str, *, value: str | None, recursive: bool) -> str:
        """As `reg query` prints it; `value` "" is the default one."""

    def export(self, source: RegistrySource, key: str) -> str:
        """As `reg export` writes it, in lines that end in LF."""

    def diff(self, before: RegistrySource, after: RegistrySource, key: str) -> str:
        """What makes one registry into another, in the form of `export`; empty when nothing does. Both are of one kind."""
