"""Mapped pipes of a container in a VM: a socket on which the guest's launcher seems to be at the other end.

What is said on it goes through the agent (docs/guest-protocol.md), and the ends of Unix pipes that are passed on it become streams
of the guest. So silo.isolation.pipes need not know where a silo runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket

from silo.errors import SiloError
from silo.isolation.launcher_messages import MAXIMUM_MESSAGE_BYTES
from silo.isolation.nonblocking import until_ready
from silo.isolation.vm.answers import Nothing, Relayed
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.pumps import copy_in, copy_out
from silo.isolation.vm.session import GuestSession

log = logging.getLogger(__name__)

# a machine that is paused answers when it goes on
_PATIENCE_S = 1e7
_FORGET_LIMIT_S = 30.0


class PipeCarrier:
    """One mapped pipe. It ends with the socket, with the link in the guest, or with the connection to the agent."""

    def __init__(self, session: GuestSession) -> None:
        self._session = session
        self._client = session.client
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._link = session.new_pipe(self._hear)
        self._early: list[bytes] | None = []
        """What has come before the answer to the first message was passed on: that one's reply is read a moment later."""

    @classmethod
    async def dial(cls, session: GuestSession) -> socket.socket:
        """The other end, for whoever speaks with launchers."""
        carrier = cls(session)
        task = asyncio.create_task(carrier._run(), name="guest-pipe")
        session.carriers.add(task)
        task.add_done_callback(session.carriers.discard)
        return carrier._theirs

    def _hear(self, untrusted_message: bytes) -> None:
        """What the launcher says, to be checked by whoever listens at the other end."""
        if self._early is not None:
            self._early.append(untrusted_message)
            return
        try:
            if untrusted_message:
                self._ours.send(untrusted_message)
            else:
                self._ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            # it is closed, or a launcher speaks faster than it can be listened to
            with contextlib.suppress(OSError):
                self._ours.shutdown(socket.SHUT_RDWR)

    async def _run(self) -> None:
        try:
            first, descriptors = await self._receive()
            _close(descriptors)
            if first:
                params = {"container": MAIN, "link": self._link, "message": first.hex()}
                answer = await self._client.request("pipe", params, answer=Relayed, timeout_s=_PATIENCE_S)
                self._ours.send(bytes.fromhex(answer.answer))
                early, self._early = self._early or [], None
                for message in early:
                    self._hear(message)
                while await self._pass_on():
                    pass
        except (SiloError, OSError) as error:
            log.info("a pipe of a container in a virtual machine: %s", error)
        finally:
            self._session.drop_pipe(self._link)
            self._ours.close()
            with contextlib.suppress(SiloError):
                self._client.begin_unanswered("pipe_close", {"link": self._link})

    async def _pass_on(self) -> bool:
        message, descriptors = await self._receive()
        if not message:
            return False
        if len(descriptors) != 2:
            _close(descriptors)
            params = {"link": self._link, "message": message.hex()}
            await self._client.request("pipe_say", params, timeout_s=_PATIENCE_S)
            return True
        streams = asyncio.create_task(self._carry(message, *descriptors), name="guest-pipe-stream")
        self._session.carriers.add(streams)
        streams.add_done_callback(self._session.carriers.discard)
        return True

    async def _carry(self, message: bytes, source: int, sink: int) -> None:
        """The launcher's ends of one connection: what it would read and write is carried by two streams."""
        client = self._client
        numbers = client.new_stream(), client.new_stream()
        for descriptor in (source, sink):
            os.set_blocking(descriptor, False)
        try:
            params = {"link": self._link, "message": message.hex(), "streams": numbers}
            asked = client.begin("pipe_say", params)
            writer = client.open_writer(numbers[0], passing=True)
            reader = client.open_reader(numbers[1], passing=True)
            await client.finish(asked, "pipe_say", Nothing, timeout_s=_PATIENCE_S)
            inward = asyncio.create_task(copy_in(source, writer))
            try:
                await copy_out(reader, sink)
            finally:
                inward.cancel()
                await asyncio.gather(inward, return_exceptions=True)
        except SiloError as error:
            log.info("a connection to a pipe in a virtual machine: %s", error)
        finally:
            _close([source, sink])
            await self._forget(numbers)

    async def _forget(self, numbers: tuple[int, int]) -> None:
        settled = False
        with contextlib.suppress(SiloError):
            await self._client.request("pipe_forget", {"streams": numbers}, timeout_s=_FORGET_LIMIT_S)
            settled = True
        self._client.forget_streams(*numbers, settled=settled)

    async def _receive(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._ours, MAXIMUM_MESSAGE_BYTES, 2)
            except BlockingIOError:
                await until_ready(self._ours.fileno(), writable=False)
            else:
                return data, descriptors


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
