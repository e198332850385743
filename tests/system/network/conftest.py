"""A private network for each test: the test's thread leaves the host's network namespace before anything else happens.

    outside (198.51.100.2) ──veth── "host" (198.51.100.1, the test's thread, BridgeNetworks) ──silo0── containers

Threads and programs started by a thread inherit its network namespace, so the daemon's own threads come along; nothing of the
real host is changed, and all devices and rules vanish with the last process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from silo.model.ids import new_id
from silo.model.network import Endpoint, EndpointRequest, NetworkConfig, PortBinding
from silo.model.runtime import Sandbox
from silo.network import BridgeNetworks
from tests.support.documents import MemoryDocuments

T = TypeVar("T")
HOST_ADDRESS, OUTSIDE_ADDRESS = "198.51.100.1", "198.51.100.2"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

ECHO = """
import socket, sys, threading
kind, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if len(sys.argv) > 3 else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", port))
if kind == "tcp":
    s.listen(16)
print("ready", flush=True)
while True:
    if kind == "tcp":
        c, peer = s.accept()
        c.sendall(f"{c.recv(100).decode()} from {peer[0]}".encode()); c.close()
    else:
        data, peer = s.recvfrom(100)
        s.sendto(f"{data.decode()} from {peer[0]}".encode(), peer)
"""
ASK = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(1.0)
try:
    s.connect((address, port)); s.sendall(b"hello"); print(s.recv(200).decode())
except OSError as error:
    print(f"failed: {type(error).__name__}")
"""


class Container:
    """A process that keeps a network namespace, as a sandbox does."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.id = new_id()
        self.sandbox = Sandbox(id=self.id, netns=Path(f"/proc/{process.pid}/ns/net"), user_namespace=False)
        self.endpoints: tuple[Endpoint, ...] = ()

    @property
    def address(self) -> str:
        return self.endpoints[0].ipv4_address

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class World:
    """Used inside the test's thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.documents = MemoryDocuments(NetworkConfig)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.sh("ip link set lo up")
        self.outside = self._holder()
        self.sh(f"ip link add up0 type veth peer name eth0 netns {self.outside}")
        self.sh(f"ip addr add {HOST_ADDRESS}/24 dev up0 && ip link set up0 up")
        self.sh(f"ip addr add {OUTSIDE_ADDRESS}/24 dev eth0 && ip link set eth0 up && ip link set lo up", self.outside)
        self.sh(f"ip route add default via {OUTSIDE_ADDRESS}")

    def networks(self, **options: Any) -> BridgeNetworks:
        return BridgeNetworks(run_root=self.directory / "run", networks=self.documents, **options)

    def sh(self, command: str, where: int | Container | None = None, *, check: bool = True) -> str:
        pid = where.process.pid if isinstance(where, Container) else where
        prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
        done = subprocess.run([*prefix, "sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout

    def _spawn(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)
        self._processes.append(process)
        return process

    def spawn_in(self, where: int | Container, argv: list[str]) -> subprocess.Popen[bytes]:
        pid = where.process.pid if isinstance(where, Container) else where
        return self._spawn(["nsenter", f"--net=/proc/{pid}/ns/net", *argv], stdout=subprocess.PIPE)

    def _holder(self) -> int:
        return self._make_holder().pid

    def _make_holder(self, *unshare: str) -> subprocess.Popen[bytes]:
        process = self._spawn(["unshare", "-n", *unshare, "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def container(self, *unshare: str) -> Container:
        return Container(self._make_holder(*unshare))

    def serve(self, where: int | Container, kind: str, port: int, *, ipv6: bool = False) -> subprocess.Popen[bytes]:
        """An echo server that also tells whom it saw."""
        pid = where.process.pid if isinstance(where, Container) else where
        prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
        extra = ["6"] if ipv6 else []
        process = self._spawn([*prefix, "python3", "-c", ECHO, kind, str(port), *extra], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    async def ask(self, kind: str, address: str, port: int, where: int | Container | None = None) -> str:
        pid = where.process.pid if isinstance(where, Container) else where
        prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
        argv = [*prefix, "python3", "-c", ASK, kind, address, str(port)]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    async def join(
        self,
        networks: BridgeNetworks,
        *requests: EndpointRequest,
        names: tuple[str, ...] = (),
        ports: tuple[PortBinding, ...] = (),
    ) -> Container:
        """A container that is connected (to the default network unless told) and published."""
        container = self.container()
        wanted = requests or (EndpointRequest(network="bridge"),)
        container.endpoints = await networks.connect(container.id, container.sandbox, wanted, dns_names=names)
        if ports:
            await networks.publish(container.id, ports, container.endpoints)
        return container

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


Scenario = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def in_private_network(tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs an async scenario in a thread with a network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("probed: not root, cannot make network namespaces")

    def run(scenario: Scenario) -> None:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                if _libc.unshare(_CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
                world = World(tmp_path)
                try:
                    uvloop.run(asyncio.wait_for(scenario(world), 60))  # the daemon's loop
                finally:
                    world.close()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=body, name="private-network")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    return run
