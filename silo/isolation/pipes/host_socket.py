"""A Unix socket of the host as the other side of a silo's pipe: each program that opens the pipe gets a connection to it.

The socket is looked up anew each time, so a service that is started again is found. It is the daemon that connects, and only bytes
pass: no descriptor, and no other socket than the one that was named.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from pathlib import Path

from silo.isolation.pipes.link import PipeLink, close_all, make_channel
from silo.isolation.pipes.messages import MAXIMUM_CONNECTIONS
from silo.isolation.pipes.relay import relay
from silo.isolation.pipes.relays import Relays

log = logging.getLogger(__name__)

_BUSY_PAUSE_S = 0.05
_BUSY_TRIES = 200


class HostSocket:
    """See silo.isolation.pipes.link.Counterpart. One for each mapped pipe of a silo."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = asyncio.Semaphore(MAXIMUM_CONNECTIONS)
        self._relays = Relays(str(path))

    def join(self, link: PipeLink) -> bool:
        del link
        return True

    def leave(self, link: PipeLink) -> None:
        """Programs that are connected stay so until they or the service end."""

    def served(self, link: PipeLink, now: bool) -> None:
        if now:
            log.info("a program in the container serves %s itself: it is not led to %s", link.name, self._path)

    def client(self, link: PipeLink, number: int) -> None:
        # As many again may wait for room: a silo sees the end of a connection earlier than its relay does.
        if len(self._relays) < 2 * MAXIMUM_CONNECTIONS:
            self._relays.start(self._serve(link, number))
        else:
            link.refuse(number)

    def ended(self, link: PipeLink, number: int) -> None:
        """The relay sees it by itself."""

    async def _serve(self, link: PipeLink, number: int) -> None:
        async with self._room:
            try:
                connection = await open_socket(self._path)
            except OSError as error:
                log.info("the pipe %s: %s: %s", link.name, self._path, error)
                link.refuse(number)
                return
            try:
                source, sink, others_source, others_sink = make_channel()
            except OSError:
                connection.close()
                link.refuse(number)
                raise
            if link.attach(number, others_source, others_sink):
                await relay(connection, source, sink)
            else:
                connection.close()
                close_all(source, sink)

    async def close(self) -> None:
        """The silo has ended; what its programs wrote last still arrives."""
        await self._relays.close()


async def open_socket(path: Path) -> socket.socket:
    """A connection to a listening stream socket. Raises OSError."""
    # By way of a descriptor: what was looked at is what is connected to, and paths may be longer than 107 bytes.
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(place).st_mode):
            raise OSError("it is not a socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            for _ in range(_BUSY_TRIES):
                try:
                    connection.connect(f"/proc/self/fd/{place}")
                except BlockingIOError:  # its backlog is full
                    await asyncio.sleep(_BUSY_PAUSE_S)
                else:
                    return connection
            raise TimeoutError("the service accepts no connection")
        except BaseException:
            connection.close()
            raise
    finally:
        os.close(place)
