"""Named pipes that are mounted: silos meet at one of the host's, programs of the host at its socket, silos at a host's socket."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.probes import require_program
from tests.support.windows import compile_program
from tests.system.windows.conftest import Windows
from tests.system.windows.test_life import until

pytestmark = pytest.mark.system

PIPES = "C:\\tests\\pipes.exe"
MEGABYTES = 5_000_000


def pipe(name: str) -> str:
    return f"\\\\.\\pipe\\{name}"


def pattern(count: int) -> bytes:
    """What `pipes send` and `source` give."""
    return bytes((index * 7 + (index >> 8) * 13) & 255 for index in range(count))


PATTERN = pattern(MEGABYTES)
SUM = f"{MEGABYTES} {zlib.crc32(PATTERN):08x}"


@pytest.fixture(scope="module", autouse=True)
def pipes_program(folder: Path) -> None:
    compile_program("pipes", folder)


@pytest.fixture(scope="module")
def silos(docker: Docker, folder: Path) -> Iterator[tuple[str, str]]:
    """`ada` and `bob`, which have mapped the pipe `meet` of the host, bob by another name; and `eve`, who has not."""
    wait = ("-di", "-v", f"{folder}:C:\\tests:ro")
    docker("run", *wait, "--name", "ada", "-v", f"{pipe('meet')}:{pipe('meet')}", "windows", "cmd")
    mount = f"type=npipe,source={pipe('Meet')},target={pipe('bobs-own')}"
    docker("run", *wait, "--name", "bob", "--mount", mount, "windows", "cmd")
    docker("run", *wait, "--name", "eve", "windows", "cmd")
    yield "ada", "bob"
    docker("rm", "-f", "ada", "bob", "eve")


def run(docker: Docker, silo: str, *words: str) -> str:
    return docker("exec", silo, PIPES, *words).strip()


@contextmanager
def serving(docker: Docker, silo: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """While `pipes serve` runs in the silo. A client that was killed leaves its program: so that one is ended by hand."""
    server = docker.start("exec", silo, PIPES, "serve", *words)
    assert server.stdout is not None
    try:
        assert server.stdout.readline().strip() == b"ready"
        yield server
    finally:
        docker.try_("exec", silo, "taskkill", "/f", "/im", "pipes.exe")
        server.wait(20)
        server.stdout.close()


def until_nobody(docker: Docker, silo: str, name: str) -> None:
    until(lambda: run(docker, silo, "look", pipe(name)) == "nobody")


# --- two silos


def test_two_silos_meet_at_a_mapped_pipe_and_nowhere_else(docker: Docker, silos: tuple[str, str]) -> None:
    assert run(docker, "bob", "look", pipe("bobs-own")) == "nobody"
    with serving(docker, "ada", "echo", pipe("meet")):
        assert run(docker, "bob", "call", pipe("bobs-own"), "hello") == "said hello"
        assert run(docker, "ada", "call", pipe("meet"), "at home") == "said at home"
        assert run(docker, "bob", "look", pipe("meet")) == "nobody"
        assert run(docker, "eve", "look", pipe("meet")) == "nobody"
    until_nobody(docker, "bob", "bobs-own")


def test_a_pipe_of_the_same_name_that_is_not_mapped_is_another(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "echo", pipe("private")), serving(docker, "eve", "echo", pipe("private")):
        assert run(docker, "bob", "look", pipe("private")) == "nobody"


def test_either_silo_can_serve(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "bob", "bytes-echo", pipe("bobs-own")):
        assert run(docker, "ada", "call", pipe("MEET"), "hello") == "said hello"
    until_nobody(docker, "ada", "meet")


def test_megabytes_pass_whole_in_both_directions(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "bytes-sink", pipe("meet")) as server:
        assert run(docker, "bob", "send", pipe("bobs-own"), str(MEGABYTES)) == f"gave {SUM}"
        assert server.stdout is not None
        assert server.stdout.readline().decode().strip() == f"took {SUM}"
    until_nobody(docker, "bob", "bobs-own")
    with serving(docker, "ada", "source", pipe("meet"), str(MEGABYTES)):
        assert run(docker, "bob", "receive", pipe("bobs-own")) == f"took {SUM}"
    until_nobody(docker, "bob", "bobs-own")
    with serving(docker, "ada", "bytes-echo", pipe("meet")):
        assert run(docker, "bob", "both", pipe("bobs-own"), str(MEGABYTES)) == f"took {SUM}"


def test_pipes_of_one_direction(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "in-sink", pipe("meet")) as server:
        assert run(docker, "bob", "send", pipe("bobs-own"), "100000").startswith("gave 100000")
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"took 100000")
    until_nobody(docker, "bob", "bobs-own")
    with serving(docker, "ada", "out-source", pipe("meet"), "100000"):
        assert run(docker, "bob", "receive", pipe("bobs-own")).startswith("took 100000")


def test_messages_stay_messages(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "echo", pipe("meet")):
        assert run(docker, "bob", "messages", pipe("bobs-own")) == (
            # the last is longer than a frame, and comes in two
            "lengths 1 1000 4096 0 65536 65537 1048576 7 1048576 151424"
        )


def test_many_clients_at_once_and_more_than_there_may_be(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "echo", pipe("meet")):
        assert run(docker, "bob", "many", pipe("bobs-own"), "100") == "answered 100"
        assert run(docker, "bob", "many", pipe("bobs-own"), "100") == "answered 100"


def test_a_server_that_goes_away_and_comes_back(docker: Docker, silos: tuple[str, str]) -> None:
    for text in ("one", "two"):
        with serving(docker, "ada", "echo", pipe("meet")):
            assert run(docker, "bob", "call", pipe("bobs-own"), text) == f"said {text}"
        until_nobody(docker, "bob", "bobs-own")


def test_a_server_that_makes_its_pipe_anew_for_each_client(docker: Docker, silos: tuple[str, str]) -> None:
    for text in ("one", "two"):
        with serving(docker, "ada", "once-echo", pipe("meet")):
            assert run(docker, "bob", "call", pipe("bobs-own"), text) == f"said {text}"


def test_nobody_can_take_a_name_that_is_served_elsewhere(docker: Docker, silos: tuple[str, str]) -> None:
    with serving(docker, "ada", "echo", pipe("meet")):
        assert run(docker, "bob", "call", pipe("bobs-own"), "x") == "said x"
        done = docker.try_("exec", "bob", PIPES, "serve", "echo", pipe("bobs-own"))
        assert "failed create 231" in done.stdout  # ERROR_PIPE_BUSY: all instances that may be there are


# --- the host


def test_a_program_of_the_host_is_a_client(docker: Docker, silos: tuple[str, str]) -> None:
    path = docker.silod.run_root / "pipes" / "meet"
    until(lambda: not path.exists())
    with serving(docker, "ada", "echo", pipe("meet")):
        until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"from outside")
            assert client.recv(100) == b"from outside"
    until(lambda: not path.exists())
    with serving(docker, "ada", "source", pipe("meet"), str(MEGABYTES)):
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            assert _read_all(client) == PATTERN


@contextmanager
def host_service(path: Path, *, answer: bytes = b"") -> Iterator[list[bytes]]:
    """A service on a Unix socket: it echoes, or answers once its client has no more to say. Yields what it got."""
    got: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    listener.listen(64)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if answer:
                got.append(_read_all(connection))
                connection.sendall(answer)
            else:
                while data := connection.recv(65536):
                    connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield got
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        path.unlink()


def _read_all(connection: socket.socket) -> bytes:
    pieces = []
    while data := connection.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def test_a_silo_reaches_a_socket_of_the_host(windows: Windows) -> None:
    path = windows.docker.silod.root / "echo.sock"
    mount = ("-v", f"{path}:{pipe('echo')}")
    with host_service(path):
        windows.docker("run", "-di", "--name", "win", *windows.mount, *mount, "windows", "cmd")
        assert run(windows.docker, "win", "call", pipe("echo"), "hello") == "said hello"
        assert run(windows.docker, "win", "both", pipe("ECHO"), str(MEGABYTES)) == f"took {SUM}"
        assert run(windows.docker, "win", "many", pipe("echo"), "100") == "answered 100"
    # nobody listens, then another one does
    assert "failed" in windows.docker.try_("exec", "win", PIPES, "call", pipe("echo"), "hello").stdout
    with host_service(path):
        assert run(windows.docker, "win", "call", pipe("echo"), "again") == "said again"


def test_the_pipe_is_there_when_the_program_starts_and_its_last_bytes_arrive(windows: Windows) -> None:
    path = windows.docker.silod.root / "answers.sock"
    with host_service(path, answer=b"unread") as got:
        flags = ("--rm", *windows.mount, "--mount", f"type=npipe,source={path},target={pipe('service')}")
        said = windows.docker("run", *flags, "windows", PIPES, "send", pipe("service"), str(MEGABYTES))
        assert said.strip() == f"gave {SUM}"
        until(lambda: got == [PATTERN])


def test_mounts_of_pipes_are_shown(windows: Windows) -> None:
    path = windows.docker.silod.root / "echo.sock"
    with host_service(path):
        flags = ("-v", f"{pipe('Shown')}:{pipe('Shown')}", "-v", f"{path}:{pipe('docker_engine')}")
        windows.docker("create", "--name", "win", *flags, "windows", "cmd")
    shown = windows.docker.inspect("win")
    assert shown["HostConfig"]["Binds"] == [flags[1], flags[3]]
    rest = {"Mode": "", "RW": True, "Propagation": ""}
    assert shown["Mounts"] == [
        {"Type": "npipe", "Source": pipe("Shown"), "Destination": pipe("Shown"), **rest},
        {"Type": "npipe", "Source": str(path), "Destination": pipe("docker_engine"), **rest},
    ]
    assert "is no Unix socket of this host" in windows.docker.try_("start", "win").stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-v", f"{pipe('x')}:{pipe('x')}:ro"), "cannot be read-only"),
        (("--mount", f"type=npipe,source={pipe('x')},target={pipe('x')},readonly"), "cannot be read-only"),
        (("-v", f"{pipe('x')}:{pipe('x')}", "-v", f"{pipe('y')}:{pipe('X')}"), "Duplicate mount point"),
        (("-v", f"{pipe('x')}:C:\\x"), "is not a valid pipe path"),
        (("-v", f"volume:{pipe('x')}"), "is not a valid pipe path"),
        (("-v", f"{pipe('x')}:{pipe('svcctl')}"), "Windows itself serves this pipe"),
        (("-v", f"/etc/hostname:{pipe('x')}"), "is no Unix socket of this host"),
        (("-v", f"/nowhere:{pipe('x')}"), "is no Unix socket of this host"),
        (("--isolation", "hyperv", "-v", f"{pipe('x')}:{pipe('x')}"), "not supported with --isolation hyperv"),
    ],
)
def test_what_cannot_be_is_refused(windows: Windows, flags: tuple[str, ...], words: str) -> None:
    done = windows.docker.try_("create", *flags, "windows", "cmd")
    assert done.returncode == 1 and words in done.stderr, done.stderr


# --- ends


def test_a_container_that_stops_leaves_no_socket(windows: Windows) -> None:
    docker = windows.docker
    path = docker.silod.run_root / "pipes" / "leaving"
    mount = ("-v", f"{pipe('leaving')}:{pipe('leaving')}")
    docker("run", "-d", "--name", "win", *windows.mount, *mount, "windows", PIPES, "serve", "echo", pipe("leaving"))
    until(path.exists)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        docker("kill", "win")
        assert client.recv(100) == b""
    assert not path.exists()
    docker("start", "win")
    until(path.exists)


def test_a_killed_daemon_breaks_no_connection_between_silos(windows: Windows, silos: tuple[str, str]) -> None:
    docker = windows.docker
    path = docker.silod.root / "echo.sock"
    mounts = (*windows.mount, "-v", f"{pipe('meet')}:{pipe('meet')}", "-v", f"{path}:{pipe('echo')}")
    with host_service(path):
        words = ("windows", PIPES, "hold", pipe("meet"))
        docker("run", "-d", "--name", "server", *mounts, "windows", PIPES, "serve", "echo", pipe("meet"))
        docker("run", "-di", "--name", "win", *mounts, *words)
        until(lambda: "held" in docker("logs", "win"))
        docker.silod.kill()
        docker.silod.start()
        attached = docker.start("attach", "win", stdin=subprocess.PIPE)
        assert attached.stdin is not None and attached.stdout is not None
        attached.stdin.write(b"still here\n")
        attached.stdin.flush()
        until(lambda: "said still here" in docker("logs", "win"))
        attached.kill()
        attached.communicate()
        assert run(docker, "bob", "call", pipe("bobs-own"), "new") == "said new"
        assert run(docker, "server", "call", pipe("echo"), "new") == "said new"
        until((docker.silod.run_root / "pipes" / "meet").exists)


# --- what it costs


def test_a_mapped_pipe_that_nobody_uses_costs_next_to_nothing(docker: Docker, silos: tuple[str, str]) -> None:
    """Less than one part in two hundred of a processor more than a silo without; it looks five times a second."""

    def used_s(silo: str) -> float:
        words = (
            "--unix-socket",
            str(docker.silod.socket),
            f"http://silo/containers/{silo}/stats?stream=false&one-shot=1",
        )
        done = subprocess.run(["curl", "--silent", "--fail", *words], capture_output=True, check=True)
        return float(json.loads(done.stdout)["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9

    def rates() -> tuple[float, float]:
        before, start = (used_s("bob"), used_s("eve")), time.monotonic()
        time.sleep(5)
        elapsed = time.monotonic() - start
        return (used_s("bob") - before[0]) / elapsed, (used_s("eve") - before[1]) / elapsed

    require_program("curl")
    found = []
    for _ in range(3):
        mapped, plain = rates()
        found.append((mapped, plain))
        if 0 < mapped - plain < 0.005:
            return
    raise AssertionError(f"used with and without a mapped pipe, in processors: {found}")
