"""One mapped pipe of one running silo: a connection to its launcher that stays open, orders out, events in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Protocol

from silo.errors import GuestError, SiloError
from silo.isolation.launcher_messages import MAXIMUM_MESSAGE_BYTES, decode_answer, expect_done
from silo.isolation.pipes.messages import (
    Client,
    Ended,
    Served,
    decode_event,
    encode_attach,
    encode_offer,
    encode_open,
    encode_pipe,
    encode_refuse,
)

log = logging.getLogger(__name__)


class Counterpart(Protocol):
    """What a silo's pipe is mapped to. Called on the event loop."""

    def join(self, link: PipeLink) -> bool:
        """Answers whether the pipe is served outside of this silo."""

    def leave(self, link: PipeLink) -> None:
        """The silo has ended, or its launcher says what is none of the protocol."""

    def served(self, link: PipeLink, now: bool) -> None: ...
    def client(self, link: PipeLink, number: int) -> None: ...
    def ended(self, link: PipeLink, number: int) -> None: ...


class PipeLink:
    """`open_numbers` are the connections that count against the limit; the counterpart keeps them."""

    def __init__(self, name: str, counterpart: Counterpart) -> None:
        self.name = name
        self.open_numbers: set[int] = set()
        self._counterpart = counterpart
        self._connection: socket.socket | None = None
        self._answered: asyncio.Future[None] | None = None
        self._wanted: bool | None = None

    async def open(self, connection: socket.socket) -> None:
        """Map the pipe by this fresh connection to the launcher, which is taken over. Raises GuestError."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        self._connection = connection
        self._answered = loop.create_future()
        offered = self._counterpart.join(self)
        try:
            connection.send(encode_pipe(self.name, offered=offered))
            loop.add_reader(connection.fileno(), self._readable)
            await self._answered
        except OSError as error:
            self.close()
            raise GuestError("the container's launcher takes no request", details=str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The silo's programs find nobody at the pipe any more; those that are connected stay so. Idempotent."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._connection.fileno())
        loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._connection = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(GuestError("the container ended before its pipes could be mapped"))
        self._counterpart.leave(self)

    # --- orders

    def offer(self, offered: bool) -> None:
        """The pipe is served outside, or no more. Told when the launcher takes it, the newest word only."""
        self._wanted = offered
        self._tell_offer()

    def _tell_offer(self) -> None:
        if self._wanted is None or self._connection is None:
            return
        loop = asyncio.get_running_loop()
        try:
            self._connection.send(encode_offer(self._wanted))
        except BlockingIOError:
            loop.add_writer(self._connection.fileno(), self._tell_offer)
        except OSError:
            self.close()
        else:
            self._wanted = None
            loop.remove_writer(self._connection.fileno())

    def begin(self, number: int, source: int, sink: int) -> bool:
        """Connect these ends to the silo's serving program. They are taken over. False when the launcher takes nothing."""
        return self._pass(encode_open(number), source, sink)

    def attach(self, number: int, source: int, sink: int) -> bool:
        """These ends are what the silo's client wanted. They are taken over."""
        return self._pass(encode_attach(number), source, sink)

    def refuse(self, number: int) -> None:
        if self._connection is not None:
            try:
                self._connection.send(encode_refuse(number))
            except OSError:
                self.close()

    def _pass(self, message: bytes, *descriptors: int) -> bool:
        try:
            if self._connection is None:
                return False
            socket.send_fds(self._connection, [message], descriptors)
        except OSError:
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    # --- events

    def _readable(self) -> None:
        for _ in range(64):
            if self._connection is None:
                return
            try:
                # Descriptors that a hostile launcher sends with it are closed by the kernel: there is no room for them.
                untrusted_data = self._connection.recv(MAXIMUM_MESSAGE_BYTES)
                if not untrusted_data:
                    self.close()
                    return
                self._hear(untrusted_data)
            except BlockingIOError:
                return
            except (SiloError, OSError) as error:
                log.warning("the pipe %s: %s", self.name, error)
                self.close()

    def _hear(self, untrusted_data: bytes) -> None:
        if self._answered is not None and not self._answered.done():
            try:
                expect_done(decode_answer(untrusted_data), f"map the pipe {self.name}")
            except GuestError as error:
                self._answered.set_exception(error)
            else:
                self._answered.set_result(None)
            return
        match decode_event(untrusted_data):
            case Served(now):
                self._counterpart.served(self, now)
            case Client(number):
                self._counterpart.client(self, number)
            case Ended(number):
                self._counterpart.ended(self, number)


def make_channel() -> tuple[int, int, int, int]:
    """Two Unix pipes as (source, sink, other's source, other's sink); no descriptor can be sent through them."""
    source, others_sink = os.pipe2(os.O_CLOEXEC)
    try:
        others_source, sink = os.pipe2(os.O_CLOEXEC)
    except OSError:
        os.close(source)
        os.close(others_sink)
        raise
    return source, sink, others_source, others_sink


def close_all(*descriptors: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
