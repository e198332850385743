"""An isolation level: containers, their programs and their files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from silo.model.container import Resources
from silo.model.mount import PlannedMount
from silo.model.platform import Isolation
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
    Started,
    Statistics,
)


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
