"""A qemu-guest-agent that says what a test wants, behind a port like QEMU's: what is unread stays for the next client."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from silo.isolation.vm.whole.guest_agent import GuestAgent

Json = dict[str, Any]
Answer = Callable[[Json], Any]


class Refusal(Exception):
    """(class, desc)"""


class FakeAgent:
    """`answers` maps commands to functions of their arguments; bytes are sent as they are, None is silence."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, Json]] = []
        self.greeting = b""
        self.connections = 0
        self._tasks: list[asyncio.Task[None]] = []

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.connections += 1
        self._tasks.append(asyncio.ensure_future(self._serve(theirs)))
        return ours

    async def _serve(self, end: socket.socket) -> None:
        loop, buffer = asyncio.get_running_loop(), b""
        with end:
            await loop.sock_sendall(end, self.greeting)
            while data := await loop.sock_recv(end, 65536):
                buffer += data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    if line.startswith(b"\xff"):
                        # as the real one does
                        await loop.sock_sendall(end, b'{"error": {"class": "GenericError", "desc": "stray"}}\n')
                    reply = self._reply(json.loads(line.lstrip(b"\xff")))
                    if reply == b"hang up":
                        return
                    if reply is not None:
                        await loop.sock_sendall(end, reply)

    def _reply(self, message: Json) -> bytes | None:
        command, arguments = message["execute"], message.get("arguments", {})
        self.seen.append((command, arguments))
        if command == "guest-sync-delimited" and command not in self.answers:
            return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
        try:
            answer = self.answers.get(command, lambda _: {})(arguments)
        except Refusal as refusal:
            kind, text = refusal.args
            return json.dumps({"error": {"class": kind, "desc": text}}).encode() + b"\n"
        if answer is None or isinstance(answer, bytes):
            return answer
        return json.dumps({"return": answer}).encode() + b"\n"

    def commands(self) -> list[str]:
        return [command for command, _ in self.seen]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def scenario(body: Callable[[GuestAgent, FakeAgent], Awaitable[None]]) -> None:
    async def whole() -> None:
        fake = FakeAgent()
        agent = GuestAgent(fake.connect)
        try:
            await body(agent, fake)
        finally:
            agent.close()
            fake.close()

    asyncio.run(asyncio.wait_for(whole(), 20))
