"""A client of qemu-guest-agent, the agent that Linux distributions and virtio-win carry: programs, shutdown, what it knows.

One JSON object a line each way, one command at a time, over a virtio-serial port that does not tell whether anybody listens, and
that may still hold what was said to an earlier client. So before the first command, and after every one that was not answered in
time, both sides get in step again: `guest-sync-delimited` with a number of ours, whose answer comes behind a byte 0xFF.
Source: QEMU's qga/qapi-schema.json.

The agent is the guest's: its lines are bounded, awaited for a limited time, and decoded into checked values.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from silo.errors import GuestError, ProcessStartFailed, SiloError, Unavailable, Unsupported

REQUEST_LIMIT_S = 20.0
_SYNC_LIMIT_S = 5.0
_SENTINEL = b"\xff"
_LINE_BYTES = 1 << 20
# The agent keeps 16 MiB of each output, which base64 makes a third longer.
_OUTPUT_LINE_BYTES = 48 << 20
_OUTPUT_LIMIT_S = 120.0
_SKIPPED_BYTES = 64 << 20
INPUT_BYTES = 8 << 20
"""A program's input goes along with the command that starts it, and the agent takes no longer commands than this is safe for."""
SLOWEST_BYTES_S = 200_000
"""What the port carries at least in a second; the agent reads it in small pieces."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.5
_SIGNAL_BASE = 128

Json = dict[str, Any]
T = TypeVar("T")


class _Started(msgspec.Struct, frozen=True):
    pid: int


class _Status(msgspec.Struct, frozen=True, rename="kebab"):
    exited: bool
    exitcode: int | None = None
    signal: int | None = None
    out_data: str = ""
    err_data: str = ""
    out_truncated: bool = False
    err_truncated: bool = False


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """A program that has ended. `code` has 32 bits in Windows. `truncated`: the agent has thrown output away (over 16 MiB)."""

    code: int
    untrusted_stdout: bytes = b""
    untrusted_stderr: bytes = b""
    truncated: bool = False


class Address(msgspec.Struct, frozen=True, rename="kebab"):
    ip_address: str
    prefix: int = 0


class Interface(msgspec.Struct, frozen=True, rename="kebab"):
    """A network interface as the guest tells of it."""

    name: str
    hardware_address: str = ""
    ip_addresses: list[Address] = []


class OsInfo(msgspec.Struct, frozen=True, rename="kebab"):
    id: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    kernel_release: str = ""

    @property
    def is_windows(self) -> bool:
        return self.id == "mswindows"


class GuestAgent:
    """`connect` gives the host's end of the port. Methods may overlap; they take turns.

    agent = GuestAgent(vm.connect_agent)
    await agent.wait_until_ready(120)
    done = await agent.run(("/bin/uname", "-a"))
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._connection: socket.socket | None = None
        self._buffer = bytearray()
        self._in_step = False
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Let go of the port; the next command takes it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._in_step = False
        self._buffer.clear()

    # --- the wire

    async def request(
        self, command: str, *, limit_s: float = REQUEST_LIMIT_S, line_bytes: int = _LINE_BYTES, **arguments: object
    ) -> Any:
        """One command; answers what it returned, which is untrusted. Argument names are the agent's with `_` for `-`.

        Raises Unavailable (no answer in time, the machine has ended), Unsupported (not this agent's), GuestError.
        """
        try:
            async with asyncio.timeout(limit_s), self._turn:
                await self._get_in_step()
                # until it is answered, what comes next might be this one's answer
                self._in_step = False
                await self._send({"execute": command, "arguments": _with_dashes(arguments)})
                untrusted_line = await self._read_line(line_bytes)
                # a long output would hold the daemon up
                is_long = len(untrusted_line) > _LINE_BYTES
                untrusted_reply = await asyncio.to_thread(_parse, untrusted_line) if is_long else _parse(untrusted_line)
                self._in_step = True
        except TimeoutError:
            raise Unavailable(f"the guest agent did not answer {command} within {limit_s:.0f} s") from None
        except SiloError:
            self.close()
            raise
        if "error" in untrusted_reply:
            raise _explain(command, untrusted_reply["error"])
        return untrusted_reply.get("return")

    async def ask(self, answer: type[T], command: str, **options: Any) -> T:
        """`request` with a checked answer."""
        untrusted_answer = await self.request(command, **options)
        try:
            return msgspec.convert(untrusted_answer, answer)
        except msgspec.ValidationError as error:
            raise GuestError(f"the guest agent's answer to {command} cannot be read", details=str(error)) from None

    async def wait_until_ready(self, limit_s: float) -> None:
        """Until the agent answers: a guest that starts says nothing. Raises Unavailable."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    with contextlib.suppress(Unavailable):
                        return await self.ping(_SYNC_LIMIT_S)
                    # an end of the machine fails at once, silence has taken its time
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise Unavailable(
                f"the guest agent did not answer within {limit_s:.0f} s",
                hint="is qemu-guest-agent installed and running in the guest?",
            ) from None

    async def ping(self, limit_s: float = _SYNC_LIMIT_S) -> None:
        await self.request("guest-ping", limit_s=limit_s)

    async def _get_in_step(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.setblocking(False)
        if self._in_step:
            return
        number = secrets.randbelow(1 << 31)
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        # the sentinel makes the agent forget a command that was cut off; it answers that with an error, which is skipped
        await self._send(sync, before=_SENTINEL)
        skipped = 0
        while True:
            skipped += await self._skip_to_sentinel(_SKIPPED_BYTES - skipped)
            untrusted_line = await self._read_line(_LINE_BYTES)
            with contextlib.suppress(GuestError):
                if _parse(untrusted_line).get("return") == number:
                    self._in_step = True
                    return

    async def _send(self, message: Json, *, before: bytes = b"") -> None:
        assert self._connection is not None
        data = before + json.dumps(message).encode() + b"\n"
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, data)
        except OSError as error:
            raise Unavailable("the virtual machine has ended", details=str(error)) from error

    async def _receive(self) -> None:
        assert self._connection is not None
        try:
            untrusted_data = await asyncio.get_running_loop().sock_recv(self._connection, 1 << 18)
        except OSError as error:
            raise Unavailable("the virtual machine has ended", details=str(error)) from error
        if not untrusted_data:
            raise Unavailable("the virtual machine has ended")
        self._buffer += untrusted_data

    async def _read_line(self, maximum_bytes: int) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > maximum_bytes:
                raise GuestError(f"the guest agent sent a line of more than {maximum_bytes} bytes")
            await self._receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _skip_to_sentinel(self, maximum_bytes: int) -> int:
        skipped = 0
        while (place := self._buffer.find(_SENTINEL)) < 0:
            skipped += len(self._buffer)
            self._buffer.clear()
            if skipped > maximum_bytes:
                raise GuestError("the guest agent does not get in step")
            await self._receive()
        del self._buffer[: place + 1]
        return skipped + place

    # --- programs

    async def start(
        self, words: Sequence[str], *, env: Sequence[str] = (), input: bytes = b"", capture: bool = True
    ) -> int:
        """A program of the guest's by its path or name; answers its pid. `env` is all of its environment ("": the agent's).

        Raises ProcessStartFailed, Unsupported (too much input, or an agent that may not execute).
        """
        if len(input) > INPUT_BYTES:
            raise Unsupported(f"a program in this guest takes at most {INPUT_BYTES >> 20} MiB of input")
        options: Json = {"path": words[0], "arg": list(words[1:]), "capture_output": capture}
        options["limit_s"] = REQUEST_LIMIT_S + len(input) / SLOWEST_BYTES_S
        if env:
            options["env"] = list(env)
        if input:
            options["input_data"] = base64.b64encode(input).decode()
        try:
            return (await self.ask(_Started, "guest-exec", **options)).pid
        except GuestError as error:
            raise _explain_start(words[0], error) from error

    async def poll(self, pid: int) -> Executed | None:
        """None while it runs. The agent tells of an end once, and forgets it."""
        status = await self.ask(
            _Status, "guest-exec-status", pid=pid, line_bytes=_OUTPUT_LINE_BYTES, limit_s=_OUTPUT_LIMIT_S
        )
        if not status.exited:
            return None
        return Executed(
            code=_exit_code(status),
            untrusted_stdout=_decode(status.out_data),
            untrusted_stderr=_decode(status.err_data),
            truncated=status.out_truncated or status.err_truncated,
        )

    async def wait(self, pid: int) -> Executed:
        """Asked again and again, at growing intervals: the agent tells nothing on its own."""
        pause_s = _FIRST_PAUSE_S
        while (done := await self.poll(pid)) is None:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        return done

    async def run(self, words: Sequence[str], *, env: Sequence[str] = (), input: bytes = b"") -> Executed:
        return await self.wait(await self.start(words, env=env, input=input))

    # --- the guest

    async def os_info(self) -> OsInfo:
        return await self.ask(OsInfo, "guest-get-osinfo")

    async def interfaces(self) -> list[Interface]:
        return await self.ask(list[Interface], "guest-network-get-interfaces")

    async def shut_down(self) -> None:
        """Ask for it. It is not answered when it is done, only when it is not."""
        with contextlib.suppress(Unavailable):
            await self.request("guest-shutdown", limit_s=_SYNC_LIMIT_S, mode="powerdown")


def _with_dashes(arguments: Mapping[str, object]) -> Json:
    return {name.replace("_", "-"): value for name, value in arguments.items()}


def _parse(untrusted_line: bytes) -> Json:
    try:
        untrusted_reply = json.loads(untrusted_line)
    except (ValueError, RecursionError):
        untrusted_reply = None
    if not isinstance(untrusted_reply, dict):
        raise GuestError("the guest agent sent something that is no answer", details=repr(untrusted_line[:200]))
    return untrusted_reply


def _explain(command: str, untrusted_error: Any) -> SiloError:
    fields = untrusted_error if isinstance(untrusted_error, dict) else {}
    kind, text = str(fields.get("class", "")), str(fields.get("desc", ""))
    details = "".join(sign for sign in text if sign.isprintable())[:500]
    if kind == "CommandNotFound":
        hint = "its configuration may block it (BLACKLIST_RPC or block-rpcs), or it is too old"
        return Unsupported(f"the guest's agent has no {command}", details=details, hint=hint)
    return GuestError(f"the guest refused {command}", details=details)


def _explain_start(program: str, error: GuestError) -> SiloError:
    text = error.details.casefold()
    brief = f"{program!r} cannot be started in the guest"
    if "permission denied" in text or "access is denied" in text:
        return ProcessStartFailed(brief, kind="permission", details=error.details)
    if any(words in text for words in ("no such file", "cannot find", "not found", "failed to execute")):
        return ProcessStartFailed(brief, kind="not_found", details=error.details)
    return error


def _exit_code(status: _Status) -> int:
    """As shells and Docker count: 128 + signal; Windows tells of exceptions by their 32-bit codes as "signals"."""
    if status.signal:
        return status.signal & 0xFFFFFFFF if status.signal >= _SIGNAL_BASE else _SIGNAL_BASE + status.signal
    return (status.exitcode or 0) & 0xFFFFFFFF


def _decode(untrusted_text: str) -> bytes:
    try:
        return base64.b64decode(untrusted_text, validate=True)
    except ValueError:
        raise GuestError("the guest agent sent output that is no base64") from None


_WRAPPER = """
d=$1 u=$2; shift 2
cd -- "$d" || exit 126
[ -n "$u" ] || exec env "$@"
g=${u#*:}; u=${u%%:*}
[ "$g" != "$u" ] || g=$(id -g -- "$u") || exit 126
exec setpriv --reuid="$u" --regid="$g" --init-groups -- env "$@"
"""


def wrap_posix(words: Sequence[str], *, env: Sequence[str] = (), cwd: str = "", user: str = "") -> tuple[str, ...]:
    """Pure: the command with what the agent cannot set. `env` is added to its own; `user` is a name or number, maybe `:group`."""
    if not (env or cwd or user):
        return tuple(words)
    # env would take a program with "=" in its name for a variable
    command = words if "=" not in words[0] else ("sh", "-c", 'exec "$0" "$@"', *words)
    return ("/bin/sh", "-c", _WRAPPER, "silo", cwd or "/", user, *itertools.chain(env, command))
