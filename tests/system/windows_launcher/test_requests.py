"""Requests other than programs, and malformed ones."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.system.windows_launcher.conftest import Make, Silo

pytestmark = pytest.mark.system
_REFUSED = b"\x81" + struct.pack("<I", 87)


def _raw(silo: Silo, data: bytes, descriptors: tuple[int, ...] = ()) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(20)
        connection.connect(str(silo.socket_path))
        socket.send_fds(connection, [data], list(descriptors))
        answer = connection.recv(131072)
        assert connection.recv(10) == b""
        return answer


def test_the_list_of_processes(silo: Silo) -> None:
    found = {process.name: process for process in silo.ask(silo.client.processes())}
    assert {"silo-launcher.exe", "services.exe"} <= set(found)
    launcher = found["silo-launcher.exe"]
    assert launcher.threads > 1
    assert launcher.working_set_bytes > 1_000_000
    assert launcher.pid % 4 == 0


def test_a_computer_name_given_while_running(make_silo: Make) -> None:
    silo = make_silo()
    assert b"LAUNCHER-TEST" in silo.run("cmd /c echo %COMPUTERNAME%")[1]
    silo.ask(silo.client.configure("a-rather-long-name.example"))
    assert silo.run("cmd /c echo %COMPUTERNAME%")[1] == b"A-RATHER-LONG-N\r\n"
    key = "HKLM\\System\\CurrentControlSet\\Services\\Tcpip\\Parameters"
    assert b"a-rather-long-name.example" in silo.run(f"reg query {key} /v Hostname")[1]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x63",
        b"\xff" * 131072,
        b"\x01",
        b"\x01" + bytes(8) + b"\xff\xff\xff\xff",
        b"\x01" + bytes(8) + struct.pack("<I", 3) + b"cmd" + bytes(4) + bytes(4),
        b"\x01" + bytes(8) + struct.pack("<I", 3) + b"cmd" + bytes(12) + b"rest",
        b"\x01" + bytes(8) + struct.pack("<I", 3) + b"c\0d" + bytes(12),
        b"\x01" + bytes(8) + struct.pack("<I", 3) + b"c\xff\xfe" + bytes(12),
        b"\x01" + bytes(8) + struct.pack("<I", 3) + b"cmd" + bytes(12),  # no descriptors
        b"\x01\x10" + bytes(7) + struct.pack("<I", 3) + b"cmd" + bytes(12),  # unknown flag
        b"\x02\x00",
        b"\x03" + struct.pack("<IHH", 0, 0, 0),
        b"\x05\x01\x00\x00\x00",
        b"\x06",
        b"\x0a",
        b"\x0a\x00" + struct.pack("<I", 1) + b"x",
        b"\x0a\x02" + struct.pack("<I", 10) + b"\\\\.\\pipe\\x",
        b"\x0a\x00" + struct.pack("<I", 9) + b"\\\\.\\pipe\\",
        b"\x0a\x00" + struct.pack("<I", 10) + b"\\\\.\\pipe\\x" + b"rest",
        b"\x0b\x01",
    ],
)
def test_malformed_requests_are_refused(silo: Silo, data: bytes) -> None:
    assert _raw(silo, data).startswith(_REFUSED)
    silo.ready()


def test_the_mapping_of_a_pipe_ends_with_the_first_order_that_is_none(silo: Silo) -> None:
    for order, count in (
        (b"\x0b\x02", 0),
        (b"\x0c\x01\x00\x00\x80", 0),
        (b"\x0d\x01\x00\x00\x00", 2),
        (b"\x07", 0),
        (b"\x0b", 2),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(20)
            connection.connect(str(silo.socket_path))
            connection.send(b"\x0a\x01" + struct.pack("<I", 12) + b"\\\\.\\pipe\\wrong"[:12])
            assert connection.recv(10) == b"\x80"
            read, write = socket.socketpair()
            with read, write:
                socket.send_fds(connection, [order], [write.fileno()] * count)
                assert connection.recv(10) == b""
                write.close()
                read.settimeout(10)
                assert read.recv(1) == b"", "it keeps no descriptor"
    silo.ready()


def test_a_packet_too_long_or_empty(silo: Silo) -> None:
    assert _raw(silo, b"\x01" * 131073).startswith(_REFUSED)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(silo.socket_path))
    silo.ready()


def test_descriptors_passed_with_any_request_are_not_kept(silo: Silo) -> None:
    read, write = socket.socketpair()
    assert _raw(silo, b"\x07", (write.fileno(),) * 8) == b"\x80"
    write.close()
    read.settimeout(10)
    assert read.recv(1) == b""
    read.close()
