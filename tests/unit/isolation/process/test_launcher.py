"""The launcher protocol's host side: golden messages, hostile answers, and the client against a launcher made of a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from silo.errors import GuestError, InvalidRequest, ProcessStartFailed
from silo.isolation import launcher_messages
from silo.isolation.launcher_messages import (
    FLAG_MAIN,
    FLAG_NO_FLUSH,
    FLAG_PARK,
    FLAG_TTY,
    ConsoleEvent,
    Done,
    Exited,
    Failed,
    Processes,
    RunRequest,
    Started,
    WindowsProcess,
    decode_answer,
)
from silo.isolation.process.launcher import LauncherClient

Answering = Callable[[socket.socket, bytes, list[int]], None]


def test_run_is_encoded_as_documented() -> None:
    request = RunRequest(
        command_line="cmd /c é",
        directory="C:\\",
        environment=("A=1", "B=x=y"),
        path="C:\\x.exe",
        flags=FLAG_TTY | FLAG_MAIN | FLAG_NO_FLUSH,
        columns=80,
        rows=25,
    )
    assert launcher_messages.encode_run(request) == (
        b"\x01\x07\0\0\0\x50\0\x19\0\x09\0\0\0cmd /c \xc3\xa9\x03\0\0\0C:\\\x09\0\0\0A=1\nB=x=y\x08\0\0\0C:\\x.exe"
    )


def test_the_other_requests() -> None:
    assert launcher_messages.encode_signal(ConsoleEvent.CTRL_SHUTDOWN, 260) == b"\x02\x04\x01\0\0\x06\0\0\0"
    assert launcher_messages.encode_resize(120, 40) == b"\x03\0\0\0\0\x78\0\x28\0"
    assert launcher_messages.encode_list() == b"\x04"
    assert launcher_messages.encode_configure("box") == b"\x05\x03\0\0\0box"
    assert launcher_messages.encode_shutdown(-1) == b"\x06\xff\xff\xff\xff"
    assert launcher_messages.encode_ping() == b"\x07"
    assert launcher_messages.encode_save() == b"\x08"


def test_a_program_is_parked_and_started() -> None:
    request = RunRequest(command_line="cmd", flags=FLAG_MAIN | FLAG_PARK)
    assert launcher_messages.encode_run(request).startswith(b"\x01\x09\0\0\0")
    assert launcher_messages.encode_start(no_flush=False) == b"\x09\0\0\0\0"
    assert launcher_messages.encode_start(no_flush=True) == b"\x09\x04\0\0\0"


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest(command_line=""),
        RunRequest(command_line="a\0b"),
        RunRequest(command_line="a\udc80"),
        RunRequest(command_line="a", environment=("A=1\nB=2",)),
        RunRequest(command_line="a", environment=("nothing",)),
        RunRequest(command_line="a", environment=("=",)),
        RunRequest(command_line="a" * 131072),
        RunRequest(command_line="a", flags=16),
        RunRequest(command_line="a", columns=-1),
        RunRequest(command_line="a", rows=40000),
    ],
)
def test_what_the_protocol_cannot_carry_is_refused(request_: RunRequest) -> None:
    with pytest.raises(InvalidRequest):
        launcher_messages.encode_run(request_)


@pytest.mark.parametrize(("columns", "rows"), [(0, 1), (1, 0), (-1, 5), (32767, 5), (5, 70000)])
def test_impossible_sizes(columns: int, rows: int) -> None:
    with pytest.raises(InvalidRequest):
        launcher_messages.encode_resize(columns, rows)


def _process(name: bytes, pid: int = 32) -> bytes:
    return struct.pack("<IIIQQI", pid, 8, 3, 1 << 33, 77, len(name)) + name


def test_answers() -> None:
    assert decode_answer(b"\x80") == Done()
    assert decode_answer(b"\x81\x02\0\0\0\x03\0\0\0abc") == Failed(2, "abc")
    assert decode_answer(b"\x82\x20\0\0\0") == Started(32)
    assert decode_answer(b"\x83\x05\0\0\xc0") == Exited(0xC0000005)
    assert decode_answer(b"\x84\0\0\0\0") == Processes(())
    listed = decode_answer(b"\x84\x02\0\0\0" + _process(b"a.exe") + _process("ü.exe".encode(), 36))
    assert listed == Processes(
        (WindowsProcess(32, 8, 3, 1 << 33, 77, "a.exe"), WindowsProcess(36, 8, 3, 1 << 33, 77, "ü.exe"))
    )


def test_text_of_the_launcher_can_be_shown() -> None:
    assert decode_answer(b"\x81\0\0\0\0\x07\0\0\0\x1b[31m\xff\n") == Failed(0, "?[31m\ufffd?")
    (process,) = decode_answer(b"\x84\x01\0\0\0" + _process(b"x" * 5000)).processes  # type: ignore[union-attr]
    assert len(process.name) == 260


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x80\x00",
        b"\x81",
        b"\x81\0\0\0\0\x05\0\0\0abc",
        b"\x81\0\0\0\0\x02\0\0\0abc",
        b"\x82\0\0\0",
        b"\x82\0\0\0\0\0",
        b"\x83",
        b"\x84\0\0\0",
        b"\x84\xff\xff\xff\xff",
        b"\x84\x01\0\0\0" + _process(b"abc")[:-1],
        b"\x84\x01\0\0\0" + _process(b"abc") + b"x",
        b"\xff" * 100,
    ],
)
def test_answers_that_are_none(data: bytes) -> None:
    with pytest.raises(GuestError):
        decode_answer(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(2, "not_found"), (3, "not_found"), (5, "permission"), (193, "not_executable"), (216, "not_executable")],
)
def test_errors_of_windows_become_dockers(error: int, kind: str) -> None:
    failure = launcher_messages.start_error(Failed(error, "x.exe"))
    assert isinstance(failure, ProcessStartFailed)
    assert failure.kind == kind
    assert "x.exe" in failure.brief


def test_the_hint_for_another_machine_names_the_reason() -> None:
    assert "32-bit" in launcher_messages.start_error(Failed(216, "x.exe")).hint


def test_errors_without_a_docker_meaning() -> None:
    assert isinstance(launcher_messages.start_error(Failed(87, "x")), InvalidRequest)
    assert isinstance(launcher_messages.start_error(Failed(1450, "x")), GuestError)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[Answering], LauncherClient]]:
    """A client of a launcher that answers one request by the given function."""
    # a path longer than a socket address may be
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{handle}/s")
    os.close(handle)
    listener.listen(1)
    threads = []

    def serve(answering: Answering) -> LauncherClient:
        def one() -> None:
            connection, _ = listener.accept()
            with connection:
                data, descriptors, _, _ = socket.recv_fds(connection, 131072, 8)
                answering(connection, data, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

        threads.append(threading.Thread(target=one))
        threads[-1].start()
        return LauncherClient(directory / "s")

    yield serve
    for thread in threads:
        thread.join(5)
    listener.close()


def test_a_program_is_started_on_the_passed_descriptors(served: Callable[[Answering], LauncherClient]) -> None:
    def answering(connection: socket.socket, data: bytes, descriptors: list[int]) -> None:
        os.write(descriptors[1], data[13:16])
        connection.send(b"\x82\x44\0\0\0")
        connection.send(b"\x83\x2c\x01\0\0")

    read, write = os.pipe()
    client = served(answering)

    async def run() -> tuple[int, int]:
        program = await client.run(RunRequest(command_line="cmd"), (read, write, write))
        code = await program.wait()
        program.close()
        return program.pid, code

    assert asyncio.run(run()) == (0x44, 300)
    assert os.read(read, 10) == b"cmd"
    os.close(read)
    os.close(write)


def test_a_launcher_that_goes_away(served: Callable[[Answering], LauncherClient]) -> None:
    client = served(lambda connection, data, descriptors: None)
    with pytest.raises(GuestError, match="went away"):
        asyncio.run(client.ping(5))


def test_a_program_whose_launcher_goes_away(served: Callable[[Answering], LauncherClient]) -> None:
    client = served(lambda connection, data, descriptors: connection.send(b"\x82\x44\0\0\0") and None)

    async def run() -> None:
        await (await client.run(RunRequest(command_line="cmd"))).wait()

    with pytest.raises(GuestError, match="went away"):
        asyncio.run(run())


def test_a_launcher_that_never_answers(served: Callable[[Answering], LauncherClient]) -> None:
    done = threading.Event()
    client = served(lambda connection, data, descriptors: done.wait(5) and None)
    with pytest.raises(GuestError, match=r"within 0\.1 s"):
        asyncio.run(client.ping(0.1))
    done.set()


@pytest.mark.parametrize("answer", [b"\x80", b"\x84\0\0\0\0", b"nonsense"])
def test_a_wrong_answer_to_run(served: Callable[[Answering], LauncherClient], answer: bytes) -> None:
    client = served(lambda connection, data, descriptors: connection.send(answer) and None)
    with pytest.raises(GuestError):
        asyncio.run(client.run(RunRequest(command_line="cmd")))


def test_a_parked_program_is_started(served: Callable[[Answering], LauncherClient]) -> None:
    def answering(connection: socket.socket, data: bytes, descriptors: list[int]) -> None:
        connection.send(b"\x82\x44\0\0\0" if data == b"\x09\x04\0\0\0" else b"\x80")

    assert asyncio.run(served(answering).start_parked(no_flush=True)) == 0x44


def test_nothing_to_start(served: Callable[[Answering], LauncherClient]) -> None:
    client = served(lambda connection, data, descriptors: connection.send(b"\x81\x90\x04\0\0\0\0\0\0") and None)
    with pytest.raises(GuestError, match="1168"):
        asyncio.run(client.start_parked())


def test_failures_name_what_could_not_be_done(served: Callable[[Answering], LauncherClient]) -> None:
    client = served(lambda connection, data, descriptors: connection.send(b"\x81\x90\x04\0\0\0\0\0\0") and None)
    with pytest.raises(GuestError, match=r"deliver the signal.*1168"):
        asyncio.run(client.signal(0, ConsoleEvent.CTRL_C))


def test_no_launcher_at_all(tmp_path: Path) -> None:
    with pytest.raises(GuestError):
        asyncio.run(LauncherClient(tmp_path / "none").ping(1))
