"""The keeper's end of its socket: connections of daemons (one at a time as a rule), packets in and out.

Standard library only (the keeper runs without site-packages). Never blocks on a peer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Any

MAXIMUM_PACKET_BYTES = 131072
_SEND_BUFFER_BYTES = 4 << 20

Handle = Callable[[socket.socket, dict[str, Any], list[int]], None]


class Clients:
    """`handle` is called with every request; `drop` with a connection that has ended."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        handle: Handle,
        drop: Callable[[socket.socket], None],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._handle = handle
        self._dropped = drop
        self._connections: set[socket.socket] = set()
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    @property
    def count(self) -> int:
        return len(self._connections)

    def stop_listening(self) -> None:
        """Whoever connects from now on is refused, and knows that a new keeper is due."""
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            client.close()
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._connections.add(client)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._receive(client))

    def _receive(self, client: socket.socket) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(client, MAXIMUM_PACKET_BYTES, 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._drop(client)
            return
        order: dict[str, Any] = json.loads(data)
        try:
            self._handle(client, order, descriptors)
        except (OSError, ValueError, KeyError) as error:
            self.reply(client, order, {"error": f"{type(error).__name__}: {error}"})
        finally:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def _drop(self, client: socket.socket) -> None:
        if client in self._connections:
            self._connections.discard(client)
            self._selector.unregister(client)
            self._dropped(client)
            client.close()

    def reply(
        self, client: socket.socket, order: dict[str, Any], answer: dict[str, Any], descriptors: list[int] | None = None
    ) -> None:
        """To a connection that may be gone."""
        self._send(client, {**answer, "id": order.get("id")}, descriptors or [])

    def tell(self, event: dict[str, Any]) -> None:
        for client in tuple(self._connections):
            if not self._send(client, event, []):
                # megabytes unread: that daemon is not reading any more, and finds all on disk when it comes again
                self._drop(client)

    def _send(self, client: socket.socket, message: dict[str, Any], descriptors: list[int]) -> bool:
        try:
            socket.send_fds(client, [json.dumps(message).encode()], descriptors, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            return error.errno != errno.ENOBUFS
        return True
