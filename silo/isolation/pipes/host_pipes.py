"""All pipes of the host's that containers have mapped.

RUN_ROOT/pipes/NAME    a socket for programs of the host, while a container serves the pipe NAME (lower case, percent-encoded)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from silo.errors import SiloError
from silo.isolation.pipes.host_socket import HostSocket
from silo.isolation.pipes.link import PipeLink
from silo.isolation.pipes.rendezvous import Rendezvous
from silo.model.mount import PlannedPipe
from silo.model.windows_pipes import pipe_file_name

log = logging.getLogger(__name__)

Dial = Callable[[], Awaitable[socket.socket]]
"""A fresh connection to a container's launcher. Raises GuestError."""


class HostPipes:
    """Used by the daemon's event loop only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._meetings: dict[str, Rendezvous] = {}
        self._links: dict[str, list[PipeLink]] = {}
        self._sockets: dict[str, list[HostSocket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """What a daemon that was killed left is removed. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        for entry in list(os.scandir(self._directory)):
            Path(entry.path).unlink()

    async def map(self, container_id: str, pipes: Sequence[PlannedPipe], dial: Dial) -> None:
        """Map the pipes of a container whose launcher can be asked; afterwards its programs find them. Raises GuestError."""
        try:
            for pipe in pipes:
                connection = await dial()
                # from here to where the link has joined nothing else runs: a meeting without links may be forgotten
                link = PipeLink(pipe.name, self._counterpart(container_id, pipe))
                self._links.setdefault(container_id, []).append(link)
                await link.open(connection)
        except BaseException:
            self.drop(container_id)
            raise

    def map_again(self, container_id: str, pipes: Sequence[PlannedPipe], dial: Dial) -> None:
        """The same for a container that a former daemon started; one that is paused has them when it goes on."""
        self._in_background(self._map_again(container_id, pipes, dial))

    async def _map_again(self, container_id: str, pipes: Sequence[PlannedPipe], dial: Dial) -> None:
        try:
            await self.map(container_id, pipes, dial)
        except SiloError as error:
            log.error("container %s has lost its named pipes: %s", container_id[:12], error)

    def _counterpart(self, container_id: str, pipe: PlannedPipe) -> HostSocket | Rendezvous:
        if pipe.socket is not None:
            found = HostSocket(pipe.socket)
            self._sockets.setdefault(container_id, []).append(found)
            return found
        name = pipe_file_name(pipe.host_pipe)
        return self._meetings.setdefault(name, Rendezvous(self._directory / name))

    def drop(self, container_id: str) -> None:
        """The container has ended; idempotent."""
        for link in self._links.pop(container_id, ()):
            link.close()
        for found in self._sockets.pop(container_id, ()):
            self._in_background(found.close())
        for name in [name for name, meeting in self._meetings.items() if meeting.is_empty]:
            self._in_background(self._meetings.pop(name).close())

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Connections between containers go on; those with the host's sockets end with the daemon."""
        for task in tuple(self._tasks):
            task.cancel()
        for container_id in tuple(self._links):
            self.drop(container_id)
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(OSError):
            self._directory.rmdir()
