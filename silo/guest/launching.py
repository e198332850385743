"""A Windows container's launcher (docs/launcher-protocol.md) as the agent sees it: a socket for requests, a pipe for the end.

The host's messages are passed on as they are, and so are the answers; of both the agent knows no more than whether a program has
started and how it ended. Imported when a container has a launcher.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable

from silo.guest.failures import Refused
from silo.guest.loop import READ, Loop

MAXIMUM_MESSAGE_BYTES = 131072
_STARTED, _EXITED = 130, 131
_BACKLOG = 64


def parse_message(text: object) -> bytes:
    """A launcher's message as requests carry it: hexadecimal."""
    message = bytes.fromhex(str(text))
    if not 0 < len(message) <= MAXIMUM_MESSAGE_BYTES:
        raise Refused("invalid", f"a launcher takes messages of 1 to {MAXIMUM_MESSAGE_BYTES} bytes")
    return message


def started_pid(answer: bytes) -> int:
    """The Windows process id of the program that has been started; 0: it has not."""
    return _number(answer, _STARTED) or 0


def exit_code(answer: bytes) -> int | None:
    return _number(answer, _EXITED)


def _number(answer: bytes, kind: int) -> int | None:
    if len(answer) != 5 or answer[0] != kind:
        return None
    number: int = struct.unpack_from("<I", answer, 1)[0]
    return number


class Launcher:
    """Of one container. `passed` are its descriptors 3 and 4, the starter's to close."""

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path
        self._unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(_BACKLOG)
            self._status, status_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.passed = [listener.detach(), status_write]

    def ask(self, message: bytes, descriptors: list[int], answered: Callable[[bytes], bool]) -> socket.socket:
        """One request; answers its connection.

        `answered` gets each answer, b"" when there will be none any more, and says whether it waits for more.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
            # a fresh connection has room for one packet
            socket.send_fds(connection, [message], descriptors)
        except BlockingIOError as error:
            connection.close()
            raise Refused("limit", "the container's launcher accepts no connection") from error
        except OSError as error:
            connection.close()
            raise Refused("launcher", f"the container has no launcher any more: {error.strerror}") from error

        def readable() -> None:
            try:
                answer = connection.recv(MAXIMUM_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                answer = b""
            goes_on = False
            try:
                goes_on = answered(answer) and bool(answer)
            finally:
                if not goes_on:
                    self._loop.unwatch(connection.fileno())
                    connection.close()

        self._loop.watch(connection.fileno(), READ, readable)
        return connection

    def take_exit_code(self, otherwise: int) -> int:
        """The main program's own, which process 1's status is too small for; `otherwise` when the launcher did not say."""
        with contextlib.suppress(OSError):
            told = os.read(self._status, 4)
            if len(told) == 4:
                return int.from_bytes(told, "little")
        return otherwise

    def close(self) -> None:
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
        self._unlink()

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - pathlib takes 10 ms to import
