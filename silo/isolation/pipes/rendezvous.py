"""One pipe of the host's: silos that have mapped it meet here, and programs of the host by a Unix socket.

One of the silos serves it, the first whose program has created it; the others, and the host, are its clients. Between two silos the
bytes go through two Unix pipes that lead from launcher to launcher: the daemon makes them and keeps nothing of them, so what is
connected stays so when the daemon ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections import deque
from pathlib import Path

from silo.isolation.pipes.link import PipeLink, close_all, make_channel
from silo.isolation.pipes.messages import HOST_BIT, MAXIMUM_CONNECTIONS
from silo.isolation.pipes.relay import relay
from silo.isolation.pipes.relays import Relays

log = logging.getLogger(__name__)

_End = tuple[PipeLink, int]


class Rendezvous:
    """See silo.isolation.pipes.link.Counterpart. `path`: the socket for programs of the host, there while somebody serves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._links: list[PipeLink] = []
        self._serving: list[PipeLink] = []
        """The first of them is the server; of the others the programs have made a pipe of their own."""
        self._other_end: dict[_End, _End | None] = {}
        self._over: set[_End] = set()
        self._pending: deque[_End] = deque()
        """Clients that wait for room, at most as many as there may be."""
        self._numbers = itertools.count(1)
        self._listener: socket.socket | None = None
        self._relays = Relays(path.name)

    @property
    def is_empty(self) -> bool:
        return not self._links

    # --- what the silos say

    def join(self, link: PipeLink) -> bool:
        self._links.append(link)
        return bool(self._serving)

    def leave(self, link: PipeLink) -> None:
        self._links.remove(link)
        self._pending = deque(end for end in self._pending if end[0] is not link)
        self.served(link, False)
        for number in tuple(link.open_numbers):
            self.ended(link, number)

    def served(self, link: PipeLink, now: bool) -> None:
        before = self._serving[:1]
        if now and link not in self._serving:
            self._serving.append(link)
        elif not now and link in self._serving:
            self._serving.remove(link)
        if bool(before) != bool(self._serving):
            if self._serving:
                self._listen()
            else:
                self._stop_listening()
        if before != self._serving[:1] or link not in self._serving:
            for other in tuple(self._links):
                if other not in self._serving:
                    other.offer(bool(self._serving))
            self._serve_pending()

    def client(self, link: PipeLink, number: int) -> None:
        end = (link, number)
        if not self._serving or end in self._other_end or len(self._pending) >= MAXIMUM_CONNECTIONS:
            link.refuse(number)
            return
        self._pending.append(end)
        self._serve_pending()

    def _serve_pending(self) -> None:
        """A connection counts at both its silos until both have said that it is over, so a client may have to wait for that."""
        while self._pending and not self._serving:
            link, number = self._pending.popleft()
            link.refuse(number)
        for _ in range(len(self._pending)):
            if _is_full(self._serving[0]):
                return
            end = self._pending.popleft()
            if _is_full(end[0]):
                self._pending.append(end)
            elif not self._connect(end, self._serving[0]):
                end[0].refuse(end[1])

    def _connect(self, end: _End, server: PipeLink) -> bool:
        """False where the server's side cannot be had."""
        channel = self._make_channel()
        if channel is None:
            return False
        source, sink, others_source, others_sink = channel
        other = (server, self._next_number())
        self._note(end, other)
        self._note(other, end)
        if not server.begin(other[1], others_source, others_sink):
            close_all(source, sink)
            self._forget(end)
            return False
        if not end[0].attach(end[1], source, sink):
            self.ended(*end)
        return True

    def ended(self, link: PipeLink, number: int) -> None:
        """A connection counts until both ends are over: the word of one silo alone frees no room in another."""
        end = (link, number)
        if end not in self._other_end:
            return
        self._over.add(end)
        other = self._other_end[end]
        if other is None or other in self._over:
            self._forget(end)
            self._serve_pending()
            self._accept_when_room()

    def _note(self, end: _End, other: _End | None) -> None:
        self._other_end[end] = other
        end[0].open_numbers.add(end[1])

    def _forget(self, end: _End) -> None:
        for one in (end, self._other_end.get(end)):
            if one is not None and one in self._other_end:
                del self._other_end[one]
                self._over.discard(one)
                one[0].open_numbers.discard(one[1])

    def _next_number(self) -> int:
        return HOST_BIT | next(self._numbers) % HOST_BIT

    def _make_channel(self) -> tuple[int, int, int, int] | None:
        try:
            return make_channel()
        except OSError as error:
            log.error("the pipe %s: %s", self._path.name, error)
            return None

    # --- programs of the host

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # a path through a descriptor, because socket addresses are at most 107 bytes long
                listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")
            finally:
                os.close(directory)
            self._path.chmod(0o600)
            listener.listen(MAXIMUM_CONNECTIONS)
            listener.setblocking(False)
        except OSError as error:
            log.error("%s: %s: containers meet, but no program of the host", self._path, error)
            listener.close()
            return
        self._listener = listener
        self._accept_when_room()

    def _accept_when_room(self) -> None:
        """Programs of the host that find no room wait in the kernel's queue."""
        if self._listener is None:
            return
        loop = asyncio.get_running_loop()
        if self._serving and not _is_full(self._serving[0]):
            loop.add_reader(self._listener.fileno(), self._accept)
        else:
            loop.remove_reader(self._listener.fileno())

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        server, channel = self._serving[0], self._make_channel()
        if channel is None:
            connection.close()
            return
        source, sink, others_source, others_sink = channel
        end = (server, self._next_number())
        self._note(end, None)
        if server.begin(end[1], others_source, others_sink):
            self._relays.start(relay(connection, source, sink))
        else:
            connection.close()
            close_all(source, sink)
            self._forget(end)
        self._accept_when_room()

    async def close(self) -> None:
        """No silo maps the pipe any more; what its programs wrote last still arrives."""
        await self._relays.close()


def _is_full(link: PipeLink) -> bool:
    return len(link.open_numbers) >= MAXIMUM_CONNECTIONS
