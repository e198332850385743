"""Silo as a subject: a daemon of its own below a scratch folder, driven by the docker client, by its API and by `silo`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers import CACHE, ROOT, quiet

PYTHON = ROOT / ".venv" / "bin" / "python"


class SiloDaemon:
    """A running silod."""

    def __init__(self, run_root: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.socket = run_root / "silo.sock"
        self.host = f"unix://{self.socket}"
        self.environment = os.environ | {"DOCKER_HOST": self.host, "SILO_HOST": self.host}

    def answers(self) -> bool:
        try:
            with Api(self.socket):
                return True
        except OSError:
            return False

    def docker(self, *words: str) -> None:
        quiet(["docker", *words], env=self.environment)

    def silo(self, *words: str) -> None:
        quiet([ROOT / "bin" / "silo", *words], env=self.environment)

    def run_by_api(self, image: str, command: list[str], *, network: str) -> None:
        """create, start, wait until removed: what a program that speaks the API does."""
        with Api(self.socket) as api:
            body = {"Image": image, "Cmd": command, "HostConfig": {"AutoRemove": True, "NetworkMode": network}}
            container = api.call("POST", "/v1.50/containers/create", body)["Id"]
            with Api(self.socket) as waiting:
                waiting.send("POST", f"/v1.50/containers/{container}/wait?condition=removed")
                waiting.read_head()
                api.call("POST", f"/v1.50/containers/{container}/start")
                status = waiting.read_chunk()
            if json.loads(status)["StatusCode"] != 0:
                raise RuntimeError(f"the container ended with {status!r}")

    def exec_by_api(self, container: str, command: list[str]) -> None:
        """create, start attached to the end of the output, look at the exit code."""
        with Api(self.socket) as api:
            body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
            made = api.call("POST", f"/v1.50/containers/{container}/exec", body)["Id"]
            with Api(self.socket) as stream:
                stream.send("POST", f"/v1.50/exec/{made}/start", {"Detach": False, "Tty": False})
                stream.read_head()
                stream.drain()
            if (code := api.call("GET", f"/v1.50/exec/{made}/json")["ExitCode"]) != 0:
                raise RuntimeError(f"the exec ended with {code}")

    def owns_keeper(self, process: Path) -> bool:
        """Whether a process has this daemon's keeper log open."""
        log = self.socket.parent / "keeper.log"
        return any(entry.resolve() == log for entry in (process / "fd").iterdir())

    def private_kib(self) -> int:
        """Proportional memory of silod."""
        return pss_kib(self.process.pid)


class Api:
    """A plain HTTP/1.1 client over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, method: str, path: str, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: silo\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self._socket.sendall(head.encode() + data)

    def read_head(self) -> dict[str, str]:
        status = self._file.readline().split()
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if int(status[1]) >= 400:
            raise RuntimeError(f"HTTP {status[1].decode()}: {self._file.read(int(headers.get('content-length', 0)))!r}")
        return headers

    def read_chunk(self) -> bytes:
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        self._file.readline()
        return data

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._file.read(65536):
            pass

    def stream(self, method: str, path: str) -> None:
        """A call that answers lines of progress; raises with the error that the last one may be."""
        self.send(method, path)
        self.read_head()
        last = b""
        while chunk := self.read_chunk():
            last = chunk
        if b"errorDetail" in last:
            raise RuntimeError(last.decode())

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.send(method, path, body)
        headers = self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            data = b""
            while chunk := self.read_chunk():
                data += chunk
        else:
            data = self._file.read(int(headers.get("content-length", 0)))
        return json.loads(data) if data else None


def pss_kib(pid: int) -> int:
    """Proportional set size of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


@contextmanager
def silod(scratch: Path, **settings: str) -> Iterator[SiloDaemon]:
    """A daemon with its own state; ends with all its containers."""
    name = "silod-" + "-".join(settings.values()) if settings else "silod"
    data, run = scratch / name, scratch / f"{name}-run"
    data.mkdir()
    run.mkdir()
    env = os.environ | {f"SILO_{key.upper()}": value for key, value in settings.items()}
    env["SILO_CACHE_ROOT"] = str(CACHE / "silo")
    # One daemon a network namespace: each gets its own.
    argv = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    argv += [str(PYTHON), "-m", "silo.daemon", "--data-root", str(data), "--run-root", str(run)]
    with (data / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in argv], cwd=ROOT, env=env, stdout=log, stderr=log)
    daemon = SiloDaemon(run, process)
    try:
        deadline = time.monotonic() + 30
        while not daemon.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"silod did not come up: {(data / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield daemon
    finally:
        if process.poll() is None:
            remove_all(daemon)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        end_keeper(run)


def remove_all(daemon: SiloDaemon) -> None:
    with Api(daemon.socket) as api:
        for row in api.call("GET", "/v1.50/containers/json?all=1"):
            with Api(daemon.socket) as one:
                one.call("DELETE", f"/v1.50/containers/{row['Id']}?force=1&v=1")


def end_keeper(run: Path) -> None:
    """The keeper outlives its daemon by design; a bench ends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
        try:
            keeper.connect(str(run / "keeper.sock"))
        except OSError:
            return
        keeper.settimeout(10)
        keeper.send(b'{"op": "shutdown", "id": 1, "force": true}')
        keeper.recv(4096)
