"""A main program that is made ahead: it waits at its entry point for its container's name, and for START."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from silo.errors import GuestError, InvalidRequest, ProcessStartFailed
from silo.isolation.launcher_messages import FLAG_MAIN, FLAG_NO_FLUSH, FLAG_PARK, FLAG_TTY, RunRequest
from tests.system.windows_launcher.conftest import Make, Silo

pytestmark = pytest.mark.system
_TEMPLATE_NAME, _NAME = "0123456789AB", "FEDCBA987654"


def _park(
    silo: Silo,
    command: str,
    *,
    flags: int = FLAG_MAIN,
    directory: str = "",
    environment: tuple[str, ...] = (),
) -> int:
    request = RunRequest(command_line=command, directory=directory, environment=environment, flags=flags | FLAG_PARK)

    async def start() -> int:
        program = await silo.client.run(request)
        program.close()
        return program.pid

    return silo.ask(start())


def _is_silent(silo: Silo) -> bool:
    return not select.select([silo.output, silo.error], [], [], 0.3)[0]


def _output(silo: Silo) -> bytes:
    """All of it: until the silo has ended."""
    seen = b""
    while data := os.read(silo.output, 65536):
        seen += data
    return seen


def _start(silo: Silo, *, no_flush: bool = False) -> int:
    return silo.ask(silo.client.start_parked(no_flush=no_flush))


@pytest.mark.parametrize(
    ("command", "expected"),
    [("cmd /c ver", b"Microsoft Windows"), ("C:\\t\\streams.exe both", b"to output\r\n")],
)
def test_nothing_is_written_before_the_start(make_silo: Make, command: str, expected: bytes) -> None:
    silo = make_silo()
    pid = _park(silo, command)
    assert _is_silent(silo)
    assert pid in {process.pid for process in silo.ask(silo.client.processes())}
    assert _start(silo) == pid
    assert silo.status_code() == 0
    assert expected in _output(silo)
    assert silo.wait() == 0


def test_streams_and_the_whole_exit_code(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "cmd /c C:\\t\\streams.exe copy & exit 4660")
    os.write(silo.input, b"written before the start")
    assert _is_silent(silo)
    _start(silo)
    os.close(silo.input)
    silo.input = -1
    assert silo.status_code() == 4660
    assert _output(silo) == b"written before the start"


def test_its_libraries_are_loaded_when_it_is_parked(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "C:\\t\\ends.exe 0")
    (pid,) = [pid for pid, name in silo.inner_processes().items() if name == "ends.exe"]
    assert "/msvcrt.dll" in Path(f"/proc/{pid}/maps").read_text()


def _make_program(silo: Silo, layer: Path, change: Callable[[bytearray], None]) -> None:
    """C:\\changed.exe, which is ends.exe with some bytes changed."""
    program = bytearray((layer / "silo/prefix/drive_c/t/ends.exe").read_bytes())
    change(program)
    assert silo.run("cmd /c C:\\t\\streams.exe copy > C:\\changed.exe", input=bytes(program))[0] == 0


def _without_entry(program: bytearray) -> None:
    (headers,) = struct.unpack_from("<I", program, 60)
    struct.pack_into("<I", program, headers + 24 + 16, 0)


def _with_missing_library(program: bytearray) -> None:
    place = program.index(b"KERNEL32.dll\0")
    program[place : place + 8] = b"NOSUCH__"


@pytest.mark.parametrize(
    ("change", "code"), [(_without_entry, 0xC0000005), (_with_missing_library, 0xC0000135)], ids=lambda value: None
)
def test_a_program_that_cannot_reach_its_entry(
    make_silo: Make, layer: Path, change: Callable[[bytearray], None], code: int
) -> None:
    silo = make_silo()
    _make_program(silo, layer, change)
    pid = _park(silo, "C:\\changed.exe")
    assert not select.select([silo.status], [], [], 0.3)[0]
    assert _start(silo) == pid
    assert silo.status_code() == code


def test_a_program_that_ended_on_its_way_can_be_ended(make_silo: Make, layer: Path) -> None:
    silo = make_silo()
    _make_program(silo, layer, _with_missing_library)
    _park(silo, "C:\\changed.exe")
    silo.ask(silo.client.signal(0, 9))
    assert silo.status_code() == 0xC0000135


def test_a_parked_program_uses_no_processor_time(make_silo: Make) -> None:
    silo = make_silo()
    pid = _park(silo, "C:\\t\\ends.exe 0")

    def used() -> int:
        return next(process.cpu_100ns for process in silo.ask(silo.client.processes()) if process.pid == pid)

    before = used()
    time.sleep(0.5)
    assert used() - before < 500_000


def test_other_programs_and_services_while_one_is_parked(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "C:\\t\\ends.exe 5")
    assert silo.run("cmd /c echo here") == (0, b"here\r\n", b"")
    deadline = time.monotonic() + 20
    while not any(name.startswith("winedevice") for name in silo.inner_processes().values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    _start(silo)
    assert silo.status_code() == 5


def test_environment_and_directory(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "cmd /c cd & echo %GREETING%", directory="C:\\app\\deep", environment=("GREETING=good day",))
    _start(silo)
    assert _output(silo) == b"C:\\app\\deep\r\ngood day\r\n"


def _named(make_silo: Make, command: str, *, environment: tuple[str, ...] = ()) -> bytes:
    """What the program says that was parked under one name and started under another."""
    silo = make_silo()
    silo.ask(silo.client.configure(_TEMPLATE_NAME))
    _park(silo, command, environment=environment)
    silo.ask(silo.client.configure("AAAAAAAAAAAA"))
    silo.ask(silo.client.configure(_NAME.lower()))
    _start(silo)
    return _output(silo)


def test_the_name_of_the_container_in_cmd(make_silo: Make) -> None:
    words = "%COMPUTERNAME% %USERDOMAIN% %LOGONSERVER%"
    assert _named(make_silo, f"cmd /c echo {words}") == f"{_NAME} {_NAME} \\\\{_NAME}\r\n".encode()
    assert _TEMPLATE_NAME.encode() not in _named(make_silo, "cmd /c set")


def test_the_name_of_the_container_in_a_c_program(make_silo: Make) -> None:
    expected = f"{_NAME} {_NAME} {_NAME}\r\n{_NAME}\r\n".encode()
    assert _named(make_silo, "C:\\t\\environment.exe COMPUTERNAME") == expected


def test_the_name_of_the_container_in_a_child(make_silo: Make) -> None:
    seen = _named(make_silo, "cmd /c C:\\t\\environment.exe COMPUTERNAME")
    assert seen == f"{_NAME} {_NAME} {_NAME}\r\n{_NAME}\r\n".encode()


def test_a_name_that_the_request_gave_stays(make_silo: Make) -> None:
    seen = _named(make_silo, "cmd /c echo %COMPUTERNAME% %USERDOMAIN%", environment=("COMPUTERNAME=mine",))
    assert seen == f"mine {_NAME}\r\n".encode()


def test_a_name_of_another_length_is_refused_while_one_is_parked(make_silo: Make) -> None:
    silo = make_silo()
    silo.ask(silo.client.configure(_TEMPLATE_NAME))
    _park(silo, "cmd /c echo %COMPUTERNAME%")
    for name in ("short", "thirteencharacters"):
        with pytest.raises(GuestError, match="computer name"):
            silo.ask(silo.client.configure(name))
    assert silo.run("cmd /c echo %COMPUTERNAME%")[1] == f"{_TEMPLATE_NAME}\r\n".encode()
    _start(silo)
    assert _output(silo) == f"{_TEMPLATE_NAME}\r\n".encode()


def test_any_name_once_it_goes_on(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "C:\\t\\events.exe")
    _start(silo)
    silo.ask(silo.client.configure("short"))
    assert silo.run("cmd /c echo %COMPUTERNAME%")[1] == b"SHORT\r\n"


def test_start_without_a_parked_program_is_refused(make_silo: Make) -> None:
    silo = make_silo()
    with pytest.raises(GuestError, match="1168"):
        _start(silo)
    _park(silo, "C:\\t\\events.exe")
    _start(silo)
    with pytest.raises(GuestError, match="1168"):
        _start(silo)


def test_start_with_unknown_flags_is_refused(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "C:\\t\\ends.exe 0")
    for data in (b"\x09\x01\0\0\0", b"\x09\x0c\0\0\0", b"\x09\x04\0"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(20)
            connection.connect(str(silo.socket_path))
            connection.send(data)
            assert connection.recv(1000).startswith(b"\x81" + struct.pack("<I", 87))
    _start(silo)
    assert silo.status_code() == 0


@pytest.mark.parametrize("flags", [0, FLAG_TTY, FLAG_MAIN | FLAG_TTY, FLAG_MAIN | FLAG_NO_FLUSH])
def test_what_cannot_be_parked_is_refused(silo: Silo, flags: int) -> None:
    with pytest.raises(InvalidRequest):
        _park(silo, "C:\\t\\ends.exe 0", flags=flags)


def test_a_program_that_does_not_exist(make_silo: Make) -> None:
    silo = make_silo()
    with pytest.raises(ProcessStartFailed, match="not found"):
        _park(silo, "nosuch.exe")
    with pytest.raises(GuestError, match="1168"):
        _start(silo)


def test_a_parked_program_is_ended(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "cmd /c ver")
    silo.ask(silo.client.signal(0, 9))
    assert silo.status_code() == 137
    assert _output(silo) == b""


def test_shutdown_while_one_is_parked(make_silo: Make) -> None:
    silo = make_silo()
    _park(silo, "cmd /c ver")
    silo.ask(silo.client.shutdown(4321))
    assert silo.status_code() == 4321
    silo.wait()


def test_the_registry_is_written_unless_the_start_says_otherwise(make_silo: Make) -> None:
    for no_flush in (False, True):
        silo = make_silo()
        assert silo.run("reg add HKCU\\Software\\Kept /v Number /t REG_DWORD /d 42 /f")[0] == 0
        _park(silo, "C:\\t\\ends.exe 0")
        _start(silo, no_flush=no_flush)
        silo.wait()
        registry = silo.upper_prefix / "user.reg"
        assert (registry.exists() and "Kept" in registry.read_text(errors="replace")) is not no_flush


def test_the_end_is_told_to_who_asked_for_the_program(make_silo: Make) -> None:
    silo = make_silo()

    async def whole() -> int:
        program = await silo.client.run(RunRequest(command_line="C:\\t\\ends.exe 77", flags=FLAG_MAIN | FLAG_PARK))
        ending = asyncio.create_task(program.wait())
        await asyncio.sleep(0.2)
        assert not ending.done()
        await silo.client.start_parked()
        code = await ending
        program.close()
        return code

    assert silo.ask(whole()) == 77
