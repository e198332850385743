"""What a guest's agent says, as checked values: every number and text has a bound, anything else is a ProtocolError.

The guest is not trusted: a container that has taken its machine over can answer anything, and gains wrong words about itself.
"""

from __future__ import annotations

import errno
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from silo.errors import (
    Conflict,
    GuestError,
    InvalidRequest,
    NoSpace,
    NotFound,
    ProcessStartFailed,
    SiloError,
    Unavailable,
    Unsupported,
)
from silo.isolation.launcher_messages import MAXIMUM_MESSAGE_BYTES
from silo.model.guest_frames import MAXIMUM_STREAM, ProtocolError
from silo.model.runtime import Statistics

_MAXIMUM_TEXT = 600

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Pid = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Code = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
StreamNumber = Annotated[int, Meta(ge=1, le=MAXIMUM_STREAM)]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a request that is only done."""


class InputState(msgspec.Struct, frozen=True, kw_only=True):
    """A stream to the guest: it has `received` bytes, and takes them up to `limit`."""

    stream: StreamNumber
    received: Count
    limit: Count
    ended: bool


class OutputState(msgspec.Struct, frozen=True, kw_only=True):
    """A stream from the guest, which holds the bytes from `start` to `end`."""

    stream: StreamNumber
    start: Count
    end: Count


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """`ends`: stream → the offset up to which all that the program itself wrote lies."""

    code: Code
    oom: bool = False
    at_ns: Count = 0
    ends: Annotated[dict[Name, Count], Meta(max_length=3)] = {}


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is starting, running or exited; a container's main program has its own name as `container`."""

    task: Name
    container: Name
    state: Name
    pid: Pid = 0
    tty: bool = False
    exit: Exit | None = None
    input: InputState | None = None
    outputs: Annotated[tuple[OutputState, ...], Meta(max_length=2)] = ()


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """`version` 0: the agent speaks none of ours. `boot` differs after each start of the agent, but not between clones."""

    version: Pid
    boot: Name = ""
    reseeded: bool = False
    tasks: Annotated[tuple[TaskState, ...], Meta(max_length=1024)] = ()


class Started(msgspec.Struct, frozen=True, kw_only=True):
    pid: Pid


class Relayed(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a Windows container's launcher, in hexadecimal; "": it went away without one."""

    answer: Annotated[str, Meta(max_length=2 * MAXIMUM_MESSAGE_BYTES, pattern="^(?:[0-9a-f]{2})*$")]


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """`given` False: it was owned already."""

    given: bool


class GuestProcess(msgspec.Struct, frozen=True, kw_only=True):
    """`pid`, `ppid`: in the guest; `ns_pid`: in the container."""

    pid: Pid
    ppid: Pid
    ns_pid: Pid
    uid: Code
    gid: Code
    state: Name
    tty: Integer
    nice: Integer
    threads: Count
    cpu_ms: Count
    age_ms: Count
    virtual_bytes: Count
    resident_bytes: Count
    name: Name
    command: Text


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    processes: Annotated[tuple[GuestProcess, ...], Meta(max_length=4096)]


class PathStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`mode` holds the type bits. Of a link: its text, the place that it means, and that one's mode (0 if there is nothing)."""

    name: Text
    mode: Code
    size: Count
    mtime_ns: Integer
    uid: Code
    gid: Code
    link: Text
    target: Text = ""
    target_mode: Code


class ExitEvent(Exit, frozen=True, kw_only=True, tag="exit", tag_field="event"):
    """A program has ended; the agent keeps it until `release`."""

    task: Name


class StreamErrorEvent(msgspec.Struct, frozen=True, kw_only=True, tag="stream_error", tag_field="event"):
    """The agent could not make sense of a frame of this stream."""

    stream: Count
    message: Text


class PipeEvent(msgspec.Struct, frozen=True, kw_only=True, tag="pipe", tag_field="event"):
    """A Windows container's launcher has said something of a mapped pipe, in hexadecimal; "": the link has ended."""

    link: Count
    message: Annotated[str, Meta(max_length=256, pattern="^(?:[0-9a-f]{2})*$")]


Event = ExitEvent | StreamErrorEvent | PipeEvent


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    kind: Name
    message: Text
    errno: Pid = 0


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    result: msgspec.Raw = msgspec.Raw()
    error: ErrorBody | None = None


T = TypeVar("T")


def decode(untrusted_data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Raises ProtocolError."""
    try:
        return msgspec.json.decode(untrusted_data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise ProtocolError("the guest's agent sent a malformed message", details=str(error)[:200]) from error


def decode_event(untrusted_data: bytes) -> Event:
    return decode(untrusted_data, Event)  # type: ignore[arg-type]


def decode_reply(untrusted_data: bytes, kind: type[T], request: str, program: str = "") -> T:
    """The result. Raises ProtocolError, and what the agent's refusal means to us."""
    reply = decode(untrusted_data, _Reply)
    if reply.error is not None:
        raise translate_error(reply.error, request, program)
    if not bytes(reply.result):
        raise ProtocolError("the guest's agent sent a reply without a result")
    if kind is Statistics:
        return _bounded_statistics(decode(reply.result, kind))
    return decode(reply.result, kind)


def _bounded_statistics(untrusted: T) -> T:
    values = msgspec.structs.asdict(untrusted)  # type: ignore[arg-type]
    detail = values.pop("memory_detail")
    if len(detail) > 200 or any(not 0 <= value < 2**63 for value in (*values.values(), *detail.values())):
        raise ProtocolError("the guest's agent sent impossible statistics")
    return untrusted


def translate_error(untrusted_error: ErrorBody, request: str, program: str = "") -> SiloError:
    """`program`: the first word of what was to be started."""
    kind = untrusted_error.kind
    words = "".join(letter if letter.isprintable() else " " for letter in untrusted_error.message[:_MAXIMUM_TEXT])
    if program and kind == "not_found":
        brief = f"{program}: executable file not found in the container (no such file or directory)"
        return ProcessStartFailed(brief, kind="not_found", details=words)
    if program and kind == "permission":
        return ProcessStartFailed(f"{program}: permission denied", kind="permission", details=words)
    if program and kind == "not_executable":
        hint = "the program is for another machine or is a script without a first line #!"
        return ProcessStartFailed(f"{program}: exec format error", kind="not_executable", details=words, hint=hint)
    brief = f"the guest refused to {request.replace('_', ' ')}"
    if kind == "system" and untrusted_error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(brief, details=words)
    if kind == "system" and untrusted_error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(brief, details=words)
    return _CLASSES.get(kind, GuestError)(brief, details=words)


_CLASSES: dict[str, type[SiloError]] = {
    "invalid": InvalidRequest,
    "archive": InvalidRequest,
    "directory": InvalidRequest,
    "not_found": NotFound,
    "no_task": NotFound,
    "conflict": Conflict,
    "not_running": Conflict,
    "not_reseeded": Conflict,
    "limit": Unavailable,
    "unknown_request": Unsupported,
}
