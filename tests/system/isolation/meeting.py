"""Two programs, probe.exe holding and probe.exe looking, in one silo, in two, or one of them outside of all silos."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemon import Docker

PROBE = "C:\\tests\\probe.exe"

_CANARY = """
import ctypes, socket, sys, time
token = sys.argv[1]
key = 5381
for letter in token.encode():
    key = (key * 33 + letter) & 0x7FFFFFFF
libc = ctypes.CDLL(None, use_errno=True)
memory = libc.shmget(key, 4096, 0o1600)
assert memory >= 0
tcp, abstract = socket.socket(), socket.socket(socket.AF_UNIX)
tcp.bind(("127.0.0.1", 41000))
tcp.listen()
abstract.bind("\\0" + token)
abstract.listen()
print("ready", flush=True)
sys.stdin.read()
libc.shmctl(memory, 0, None)
"""


def start_silo(docker: Docker, folder: Path, name: str, *flags: str) -> None:
    """A container that waits, with probe.exe in C:\\tests."""
    command = ("run", "-di", "--name", name, "-v", f"{folder}:C:\\tests:ro", *flags, "windows", "cmd")
    docker(*command)


@contextmanager
def holding(docker: Docker, silo: str, token: str) -> Iterator[None]:
    """While probe.exe in this silo holds one of each kind."""
    holder = docker.start("exec", silo, PROBE, "hold", token)
    assert holder.stdout is not None
    try:
        said = []
        for line in holder.stdout:
            said.append(line.decode().strip())
            if said[-1] == "ready":
                break
        assert said[-1:] == ["ready"], said
        assert not [line for line in said if line.startswith("failed")], said
        yield
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@contextmanager
def holding_outside(docker: Docker, token: str) -> Iterator[None]:
    """While a process of the host holds what is Linux's own of these: a port, an abstract socket, memory, a file, itself."""
    file = Path("/tmp", token)
    file.touch()
    command = docker.silod.within_network(sys.executable, "-c", _CANARY, token, "victim.exe")
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"ready\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        file.unlink()


def look(docker: Docker, silo: str, token: str) -> dict[str, str]:
    """Kind → `met` or `alone`."""
    lines = docker("exec", silo, PROBE, "look", token).splitlines()
    return {kind: outcome for outcome, _, kind in (line.strip().partition(" ") for line in lines)}
