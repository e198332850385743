"""Mapped pipes of a Windows container (docs/launcher-protocol.md): connections to its launcher that stay open.

The host's messages and the launcher's are passed on as they are. What passes through a mapped pipe is two streams of the host's,
and for the launcher two Unix pipes. All of it ends with the session. Imported when a container has mapped pipes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from silo.guest.calls import Call
from silo.guest.failures import Refused
from silo.guest.launching import Launcher
from silo.guest.loop import Loop
from silo.guest.streams import Streams

_DONE = b"\x80"
_MAXIMUM_LINKS = 256


class Pipes:
    """`tell` gets the number of a link and a message of its launcher, b"" when the link has ended."""

    def __init__(self, loop: Loop, streams: Streams, tell: Callable[[int, bytes], None]) -> None:
        self._loop = loop
        self._streams = streams
        self._tell = tell
        self._links: dict[int, socket.socket] = {}

    def open(self, call: Call, launcher: Launcher, link: int, message: bytes) -> None:
        """The first message; its answer is the call's."""
        if link in self._links or len(self._links) >= _MAXIMUM_LINKS:
            raise Refused("conflict", f"the link {link} cannot be had")
        answers = 0

        def answered(answer: bytes) -> bool:
            nonlocal answers
            answers += 1
            if self._links.get(link) is not connection:
                return False
            if answers == 1:
                call.reply({"answer": answer.hex()})
            else:
                self._tell(link, answer)
            goes_on = answer == _DONE if answers == 1 else bool(answer)
            if not goes_on:
                del self._links[link]
            return goes_on

        connection = launcher.ask(message, [], answered)
        self._links[link] = connection

    def say(self, link: int, message: bytes, numbers: list[int]) -> None:
        """A further message, with the streams that the launcher shall read and write."""
        connection = self._links.get(link)
        if connection is None:
            raise Refused("launcher", "the container has this pipe no more")
        if len(numbers) not in (0, 2):
            raise Refused("invalid", "two streams, or none")
        theirs: list[int] = []
        try:
            if numbers:
                theirs = self._make_streams(*numbers)
            socket.send_fds(connection, [message], theirs)
        except OSError as error:
            self.forget(numbers)
            raise Refused("launcher", f"the launcher takes no message: {error.strerror}") from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _make_streams(self, source: int, sink: int) -> list[int]:
        self._streams.check_free(source, sink)
        read, write = os.pipe2(os.O_CLOEXEC)
        self._streams.add_input(source, passing=True).attach(write)
        others_read, others_write = os.pipe2(os.O_CLOEXEC)
        self._streams.add_output(sink, passing=True).attach(others_read)
        return [read, others_write]

    def forget(self, numbers: list[int]) -> None:
        for number in numbers:
            self._streams.remove(number)

    def close(self, link: int) -> None:
        connection = self._links.pop(link, None)
        if connection is not None:
            self._loop.unwatch(connection.fileno())
            connection.close()

    def new_session(self) -> None:
        for link in tuple(self._links):
            self.close(link)
