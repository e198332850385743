"""The launcher protocol (docs/launcher-protocol.md) as values: what both levels say to a Windows container's launcher, and what it
answers. Pure.

Everything that comes back is untrusted: sizes and counts are checked, names are cleaned, and a launcher that answers wrongly is a
GuestError of its own container.
"""

from __future__ import annotations

import signal as signals
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from silo.errors import GuestError, InvalidRequest, ProcessStartFailed, SiloError
from silo.model.runtime import LaunchPlan

MAXIMUM_MESSAGE_BYTES = 131072
FLAG_MAIN, FLAG_TTY, FLAG_NO_FLUSH, FLAG_PARK = 1, 2, 4, 8

_RUN, _SIGNAL, _RESIZE, _LIST, _CONFIGURE, _SHUTDOWN, _PING, _SAVE, _START = range(1, 10)
_OK, _FAILED, _STARTED, _EXITED, _PROCESSES = range(128, 133)
_PROCESS_FIELDS = struct.Struct("<IIIQQI")
_NAME_CHARACTERS = 260
# Nothing to a program that did not ask for them; docker forwards the first whenever its window changes its size.
_HARMLESS = frozenset((signals.SIGWINCH, signals.SIGCHLD, signals.SIGURG, signals.SIGCONT))


class ConsoleEvent(IntEnum):
    CTRL_C = 0
    CTRL_BREAK = 1
    CTRL_CLOSE = 2
    CTRL_SHUTDOWN = 6
    TERMINATE = 9
    """The program and its descendants end with code 137."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A program to start. `environment` holds NAME=VALUE; `columns` and `rows` count with FLAG_TTY, 0 meaning unknown."""

    command_line: str
    directory: str = ""
    environment: tuple[str, ...] = ()
    path: str = ""
    flags: int = 0
    columns: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class WindowsProcess:
    pid: int
    parent_pid: int
    threads: int
    working_set_bytes: int
    cpu_100ns: int
    name: str


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out."""


@dataclass(frozen=True, slots=True)
class Failed:
    win32_error: int
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    code: int


@dataclass(frozen=True, slots=True)
class Processes:
    processes: tuple[WindowsProcess, ...]


Answer = Done | Failed | Started | Exited | Processes


def run_request(launch: LaunchPlan, flags: int = 0) -> RunRequest:
    """`flags` besides FLAG_TTY, which the plan knows."""
    rows, columns = launch.console_size or (0, 0)
    return RunRequest(
        flags=flags | (FLAG_TTY if launch.tty else 0),
        columns=columns,
        rows=rows,
        command_line=launch.command_line,
        directory=launch.directory,
        environment=launch.environment,
        path=launch.path,
    )


def console_event(signal: int) -> ConsoleEvent | None:
    """SIGKILL terminates, SIGINT is Ctrl-C, what Linux programs ignore is nothing (None), any other is CTRL_SHUTDOWN_EVENT."""
    if signal in _HARMLESS:
        return None
    events = {int(signals.SIGKILL): ConsoleEvent.TERMINATE, int(signals.SIGINT): ConsoleEvent.CTRL_C}
    return events.get(signal, ConsoleEvent.CTRL_SHUTDOWN)


def encode_run(request: RunRequest) -> bytes:
    """Raises InvalidRequest for what the protocol cannot carry."""
    for entry in request.environment:
        if "\n" in entry or "=" not in entry[1:]:
            raise InvalidRequest(f"the environment variable {entry.partition('=')[0]!r} cannot be passed to Windows")
    if request.flags & ~(FLAG_MAIN | FLAG_TTY | FLAG_NO_FLUSH | FLAG_PARK):
        raise InvalidRequest(f"unknown flags {request.flags:#x}")
    if not (0 <= request.columns < 0x8000 and 0 <= request.rows < 0x8000):
        raise InvalidRequest(f"a terminal cannot have {request.columns} columns and {request.rows} rows")
    if not (request.command_line or request.path):
        raise InvalidRequest("there is no program to start")
    head = struct.pack("<BIHH", _RUN, request.flags, request.columns, request.rows)
    texts = (request.command_line, request.directory, "\n".join(request.environment), request.path)
    return _checked(head + b"".join(_text(value) for value in texts))


def encode_signal(event: ConsoleEvent, pid: int = 0) -> bytes:
    return struct.pack("<BII", _SIGNAL, pid, event)


def encode_resize(columns: int, rows: int, pid: int = 0) -> bytes:
    """Raises InvalidRequest for a size that no console can have."""
    if not (0 < columns < 0x7FFF and 0 < rows < 0x7FFF):
        raise InvalidRequest(f"a terminal cannot have {columns} columns and {rows} rows")
    return struct.pack("<BIHH", _RESIZE, pid, columns, rows)


def encode_list() -> bytes:
    return bytes((_LIST,))


def encode_configure(computer_name: str) -> bytes:
    return _checked(bytes((_CONFIGURE,)) + _text(computer_name))


def encode_shutdown(exit_code: int) -> bytes:
    return struct.pack("<BI", _SHUTDOWN, exit_code & 0xFFFFFFFF)


def encode_ping() -> bytes:
    return bytes((_PING,))


def encode_save() -> bytes:
    return bytes((_SAVE,))


def encode_start(*, no_flush: bool) -> bytes:
    """The parked main program goes on; answered as RUN is. `no_flush` says what FLAG_NO_FLUSH says for a program not parked."""
    return struct.pack("<BI", _START, FLAG_NO_FLUSH if no_flush else 0)


def _text(value: str) -> bytes:
    if "\0" in value:
        raise InvalidRequest("a NUL character cannot be passed to Windows")
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "text that is not Unicode cannot be passed to Windows", details=repr(value[:80])
        ) from error
    return struct.pack("<I", len(data)) + data


def _checked(message: bytes) -> bytes:
    if len(message) > MAXIMUM_MESSAGE_BYTES:
        raise InvalidRequest(
            f"command line and environment take {len(message)} bytes; Windows containers accept {MAXIMUM_MESSAGE_BYTES}"
        )
    return message


def decode_answer(untrusted_data: bytes) -> Answer:
    """Raises GuestError for anything that is not an answer of the protocol."""
    kind, body = untrusted_data[:1], untrusted_data[1:]
    if kind == bytes((_OK,)) and not body:
        return Done()
    if kind == bytes((_FAILED,)) and len(body) >= 8:
        error, length = struct.unpack_from("<II", body)
        if length == len(body) - 8:
            return Failed(error, _clean(body[8:], 4096))
    if kind == bytes((_STARTED,)) and len(body) == 4:
        return Started(struct.unpack("<I", body)[0])
    if kind == bytes((_EXITED,)) and len(body) == 4:
        return Exited(struct.unpack("<I", body)[0])
    if kind == bytes((_PROCESSES,)) and len(body) >= 4:
        return Processes(_decode_processes(body))
    raise GuestError("the container's launcher gave an answer that is none", details=untrusted_data[:32].hex())


def _decode_processes(untrusted_body: bytes) -> tuple[WindowsProcess, ...]:
    (count,) = struct.unpack_from("<I", untrusted_body)
    offset, found = 4, []
    for _ in range(count):
        if len(untrusted_body) - offset < _PROCESS_FIELDS.size:
            raise GuestError("the container's launcher gave a list of processes that ends early")
        pid, parent_pid, threads, working_set, cpu, length = _PROCESS_FIELDS.unpack_from(untrusted_body, offset)
        offset += _PROCESS_FIELDS.size
        if len(untrusted_body) - offset < length:
            raise GuestError("the container's launcher gave a list of processes that ends early")
        name = _clean(untrusted_body[offset : offset + length], _NAME_CHARACTERS)
        found.append(WindowsProcess(pid, parent_pid, threads, working_set, cpu, name))
        offset += length
    if offset != len(untrusted_body):
        raise GuestError("the container's launcher gave a list of processes with a rest")
    return tuple(found)


def _clean(untrusted_text: bytes, limit: int) -> str:
    """Text that can be shown: no control characters, no more than `limit` characters."""
    text = untrusted_text.decode(errors="replace")[:limit]
    return "".join(character if character.isprintable() else "?" for character in text)


_START_ERRORS: dict[int, tuple[Literal["not_found", "permission", "not_executable"], str, str]] = {
    2: ("not_found", "the program {name} was not found in the container", ""),
    3: ("not_found", "the path of the program {name} does not exist in the container", ""),
    5: ("permission", "access to the program {name} was denied", "it may be a directory"),
    161: ("not_found", "the path of the program {name} is malformed", ""),
    193: ("not_executable", "{name} is not a Windows program", ""),
    216: (
        "not_executable",
        "{name} is a program for another kind of machine than this container",
        "this base runs 64-bit x86 programs only; it has no support for 32-bit or ARM ones",
    ),
    267: (
        "not_executable",
        "the working directory of {name} cannot be used or made",
        "give an absolute path such as C:\\app",
    ),
}


def start_error(failed: Failed) -> SiloError:
    """Why a program could not be started, in words."""
    known = _START_ERRORS.get(failed.win32_error)
    if known is None:
        if failed.win32_error in (87, 206):
            return InvalidRequest(f"Windows refused the request to start {failed.message!r}", details=_number(failed))
        return GuestError(f"{failed.message!r} could not be started", details=_number(failed))
    kind, brief, hint = known
    return ProcessStartFailed(brief.format(name=repr(failed.message)), kind=kind, details=_number(failed), hint=hint)


def expect_done(answer: Answer, purpose: str) -> None:
    """Raises GuestError unless the launcher has carried out what it was asked for."""
    if isinstance(answer, Failed):
        raise GuestError(f"the container could not {purpose}", details=_number(answer))
    if not isinstance(answer, Done):
        raise GuestError(f"the container did not say whether it could {purpose}")


def expect_started(answer: Answer) -> int:
    """The program's Windows process id. Raises ProcessStartFailed, InvalidRequest, GuestError."""
    if isinstance(answer, Failed):
        raise start_error(answer)
    if not isinstance(answer, Started):
        raise GuestError("the container's launcher did not say whether the program started")
    return answer.pid


def expect_processes(answer: Answer) -> tuple[WindowsProcess, ...]:
    """Raises GuestError."""
    if not isinstance(answer, Processes):
        raise GuestError("the container's launcher did not list its processes")
    return answer.processes


def _number(failed: Failed) -> str:
    return f"Windows error {failed.win32_error}"
