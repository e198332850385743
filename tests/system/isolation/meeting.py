"""Two programs, one that holds and one that looks, in one container, in two, or one of them outside of all containers.

For Windows they are probe.exe, for Linux meet; both speak alike.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker
from tests.support.probes import require_program

PROBE = "C:\\tests\\probe.exe"
LINUX_PROBE = "/tests/meet"

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


def require_level(level: str) -> None:
    if level == "hyperv":
        require_program("qemu-system-x86_64", "qemu-system-x86")
        require_program("bwrap", "bubblewrap")
        find_vm_image()


def start_silo(docker: Docker, folder: Path, name: str, *flags: str) -> None:
    """A Windows container that waits, with probe.exe in C:\\tests."""
    docker("run", "-di", "--name", name, "-v", f"{folder}:C:\\tests:ro", *flags, "windows", "cmd")


def start_linux(docker: Docker, folder: Path, name: str, *flags: str) -> None:
    """A Linux container that waits, with meet in /tests."""
    docker("run", "-di", "--name", name, "-v", f"{folder}:/tests:ro", *flags, "busybox", "cat")


def refused_join(docker: Docker, owner: str, image: str) -> str:
    """The words with which both levels refuse to join the network of a container in a machine."""
    words = ""
    for level in ("hyperv", "process"):
        join = ("--isolation", level, "--network", f"container:{owner}")
        done = docker.try_("run", "--rm", *join, image, "cmd" if image == "windows" else "true")
        assert done.returncode == 125 and "hyperv" in done.stderr, done.stderr
        words += done.stderr
    return words


@contextmanager
def holding(docker: Docker, silo: str, token: str, program: str = PROBE) -> Iterator[None]:
    """While the program in this container holds one of each kind."""
    holder = docker.start("exec", silo, program, "hold", token)
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


def look(docker: Docker, silo: str, token: str, program: str = PROBE) -> dict[str, str]:
    """Kind → `met` or `alone`."""
    lines = docker("exec", silo, program, "look", token).splitlines()
    return {kind: outcome for outcome, _, kind in (line.strip().partition(" ") for line in lines)}


def yama_restricts(level: str) -> bool:
    """Where the kernel lets a process trace only its children, nobody meets by ptrace. A machine's kernel does not."""
    setting = Path("/proc/sys/kernel/yama/ptrace_scope")
    return level == "process" and setting.exists() and setting.read_text().strip() != "0"


@dataclass(frozen=True)
class Looks:
    """What was seen in each case, kind by kind, and whether the victim lived afterwards."""

    separate: dict[str, str]
    shared: dict[str, str]
    outside: dict[str, str]
    joined: dict[str, str] | str
    """The refusal's words where another container's network cannot be joined."""
    restarted: dict[str, str]
    victim_after_separate: bool
    victim_after_shared: bool
