"""Record what real clients send: `python -m tests.unit.api.record_bodies tests/unit/api/golden`.

A server that answers just enough for each client to send its request, writes the body to a file and refuses. Run it again for
a new client version and look at the difference.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

DOCKER = os.environ.get("SILO_DOCKER", "docker")

CLI_COMMANDS: dict[str, list[str]] = {
    "run_plain": ["run", "busybox", "true"],
    "run_interactive": ["run", "-it", "--rm", "busybox"],
    "run_stdin": ["run", "-i", "busybox", "cat"],
    "run_many": (
        "run -d --name web --hostname h --domainname d.example -e A=1 -e B=two -w /work -u 1000:1000 "
        "-v /host/data:/data:ro -v named:/vol -v /anonymous --tmpfs /t:rw,size=64m,mode=1777 "
        "--mount type=bind,src=/src,dst=/dst,readonly --mount type=volume,src=vol,dst=/v2 "
        "--mount type=tmpfs,dst=/t2,tmpfs-size=1m -p 8080:80 -p 127.0.0.1:53:53/udp -p 9000-9002:9000-9002 -p 443 "
        "--expose 99 --label a=b --label c --restart on-failure:3 --stop-timeout 5 --stop-signal SIGINT "
        "--health-cmd true --health-interval 5s --health-retries 2 --health-timeout 3s --health-start-period 1s "
        "--entrypoint /bin/sh busybox -c id"
    ).split(),
    "run_limits": (
        "run --memory 64m --memory-swap 128m --memory-reservation 32m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0 "
        "--pids-limit 50 --blkio-weight 300 --oom-score-adj 100 --shm-size 32m --ulimit nofile=100:200 --ulimit core=0 "
        "--device /dev/fuse:/dev/f:r --device-cgroup-rule c\x001:3\x00mr busybox"
    ).split(),
    "run_security": (
        "run --privileged --cap-add NET_ADMIN --cap-add CAP_SYS_PTRACE --cap-drop ALL --read-only --init "
        "--security-opt no-new-privileges --security-opt apparmor=unconfined --security-opt systempaths=unconfined "
        "--userns host --ipc host --pid host --uts host --cgroupns host --group-add 5 --sysctl net.ipv4.ip_forward=1 "
        "busybox"
    ).split(),
    "run_network": (
        "run --network net1 --network-alias al --ip 172.30.1.5 --mac-address 02:42:ac:11:00:09 --dns 1.1.1.1 "
        "--dns-search example.org --dns-option ndots:2 --add-host db:10.0.0.1 --link other:alias busybox"
    ).split(),
    "run_no_network": ["run", "--network", "none", "--no-healthcheck", "--log-driver", "none", "busybox"],
    "run_windows": [
        "run", "--isolation", "process", "--platform", "windows/amd64", "-v", "C:\\host:C:\\data", "-v", "named:C:\\v:ro",
        "-w", "C:\\work", "-u", "ContainerUser", "windows", "cmd", "/c", "ver",
    ],
    "run_reset_entrypoint": ["run", "--entrypoint", "", "busybox", "true"],
    "run_gpus": ["run", "--gpus", "all", "busybox"],
    "run_cgroup_parent": ["run", "--cgroup-parent", "/x", "busybox"],
    "exec_plain": ["exec", "web", "true"],
    "exec_many": ["exec", "-it", "-e", "A=1", "-w", "/w", "-u", "0", "--privileged", "--detach-keys", "ctrl-a", "web", "sh"],
    "update": ["update", "--memory", "64m", "--restart", "always", "web"],
    "network_create": (
        "network create --subnet 172.30.0.0/16 --gateway 172.30.0.1 --ip-range 172.30.5.0/24 --internal --attachable "
        "--label a=b -o com.example=1 net1"
    ).split(),
    "network_connect": ["network", "connect", "--alias", "al", "--ip", "172.30.0.9", "net1", "web"],
    "volume_create": ["volume", "create", "--label", "a=b", "--opt", "type=tmpfs", "vol"],
    "commit": ["commit", "-c", "CMD [\"x\"]", "-a", "me", "-m", "msg", "web", "repo:tag"],
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: Path

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def do_GET(self) -> None:
        if "/containers/" in self.path:
            self._answer(200, {"Id": "w" * 64, "Config": {}, "State": {"Running": True}})
        else:
            self._answer(200, "OK")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        request = {"path": self.path, "body": json.loads(body or b"null")}
        self.target.write_text(json.dumps(request, indent=1, sort_keys=True) + "\n")
        self._answer(400, {"message": "recorded"})

    def log_message(self, *_args: object) -> None: ...


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = super().get_request()
        return connection, ("local", 0)


def record(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "docker.sock"
        with _Server(str(path), _Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for name, words in CLI_COMMANDS.items():
                _Handler.target = folder / f"cli_{name}.json"
                arguments = [DOCKER, "-H", f"unix://{path}", *(word.replace("\0", " ") for word in words)]
                if "-it" in words:
                    arguments = ["script", "-qec", " ".join(arguments), "/dev/null"]
                environment = os.environ | {"DOCKER_CONFIG": temporary}
                subprocess.run(arguments, env=environment, capture_output=True, timeout=20, check=False)
                if not _Handler.target.exists():
                    raise RuntimeError(f"nothing was recorded for {arguments}")
            _record_python(folder, path)
            server.shutdown()


def _record_python(folder: Path, path: Path) -> None:
    import docker
    from docker.types import Healthcheck, LogConfig, Mount, Ulimit

    client = docker.DockerClient(base_url=f"unix://{path}", version="1.50")
    _Handler.target = folder / "py_run_plain.json"
    _refused(lambda: client.containers.create("busybox", "true"))
    _Handler.target = folder / "py_run_many.json"
    _refused(
        lambda: client.containers.create(
            "busybox",
            ["sh", "-c", "id"],
            name="many",
            environment={"A": "1"},
            volumes={"/host": {"bind": "/data", "mode": "ro"}, "named": {"bind": "/v", "mode": "rw"}},
            mounts=[Mount("/m", "vol"), Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20)],
            ports={"80/tcp": 8080, "53/udp": ("127.0.0.1", 53), "443/tcp": None},
            mem_limit="64m",
            nano_cpus=1_500_000_000,
            ulimits=[Ulimit(name="nofile", soft=1, hard=2)],
            healthcheck=Healthcheck(test=["CMD", "true"], interval=5_000_000_000),
            log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
            restart_policy={"Name": "always"},
            extra_hosts={"db": "10.0.0.1"},
            labels={"a": "b"},
            init=True,
            tmpfs={"/x": "size=1m"},
            isolation="process",
            working_dir="/w",
            user="1000",
            stop_signal="SIGINT",
            cap_add=["NET_ADMIN"],
            security_opt=["no-new-privileges"],
            sysctls={"net.core.somaxconn": "100"},
            network_mode="none",
        )
    )


def _refused(call: object) -> None:
    import docker

    try:
        call()  # type: ignore[operator]
    except docker.errors.APIError:
        return
    raise RuntimeError("the recording server did not refuse")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
