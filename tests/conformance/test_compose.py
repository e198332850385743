"""docker compose as it is: a service in a machine of its own beside one of processes, on one network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker
from tests.support.probes import require, require_program

pytestmark = pytest.mark.system

PLUGINS = ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins")
FILE = """
name: trial
services:
  machine:
    image: busybox
    isolation: hyperv
    command: [sh, -c, "echo machine $$WHO; cat /inline; echo 'hello from the machine' > /index.html; exec httpd -f -p 80 -h /"]
    environment: {WHO: one}
    mem_limit: 256m
    configs: [{source: inline, target: /inline}]
    volumes: [data:/data, ./shared:/shared:ro]
    healthcheck: {test: [CMD, wget, -q, -O-, "http://127.0.0.1/"], interval: 1s, retries: 30}
    networks: {back: {priority: 10}, front: {ipv4_address: 10.214.8.9}}
  plain:
    image: busybox
    isolation: process
    command: [sh, -c, "wget -q -O- http://machine/ && cat /data/found; exec sleep 1000"]
    depends_on: {machine: {condition: service_healthy}}
    volumes: [data:/data]
    networks: {back: {aliases: [other]}}
configs: {inline: {content: "inline content\\n"}}
networks: {back: {internal: true}, front: {ipam: {config: [{subnet: 10.214.8.0/24}]}}}
volumes: {data: {}}
"""
Compose = Callable[..., str]


def find_compose() -> str:
    """As a program or as the plugin, which is one, too."""
    found = (
        os.environ.get("SILO_COMPOSE")
        or shutil.which("docker-compose")
        or next((f"{place}/docker-compose" for place in PLUGINS if Path(place, "docker-compose").exists()), "")
    )
    require("docker compose", bool(found), f"no SILO_COMPOSE, no docker-compose in PATH or {', '.join(PLUGINS)}")
    return found


@pytest.fixture
def compose(docker: Docker, tmp_path: Path) -> Iterator[Compose]:
    require_program("qemu-system-x86_64", "qemu-system-x86")
    find_vm_image()
    program = find_compose()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("from the host\n")
    (tmp_path / "compose.yaml").write_text(FILE)

    def run(*words: str) -> str:
        argv = [program, "--file", str(tmp_path / "compose.yaml"), *words]
        environment = {**docker.environment, "HOME": str(tmp_path)}
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"compose {' '.join(words)} failed with {done.returncode}:\n{done.stderr}"
        return done.stdout

    yield run
    run("down", "--volumes", "--timeout", "1")


def test_a_machine_beside_processes(docker: Docker, compose: Compose, tmp_path: Path) -> None:
    compose("up", "--detach")
    shown = compose("ps", "--format", "{{.Service}} {{.State}} {{.Health}}").splitlines()
    assert [line.split() for line in sorted(shown)] == [["machine", "running", "healthy"], ["plain", "running"]]
    assert docker("ps", "--filter", "isolation=hyperv", "--format", "{{.Names}}") == "trial-machine-1"
    assert compose("exec", "-T", "plain", "wget", "-q", "-O-", "http://machine/") == "hello from the machine\n"
    compose("exec", "-T", "machine", "ping", "-c", "1", "other")
    assert compose("exec", "-T", "machine", "cat", "/shared/file") == "from the host\n"
    compose("exec", "-T", "machine", "sh", "-c", "echo seen > /data/found")
    assert compose("exec", "-T", "plain", "cat", "/data/found") == "seen\n"
    lines = compose("logs", "--no-color").splitlines()
    said = {line.partition("|")[2].strip() for line in lines if "machine-1" in line}
    assert said == {"machine one", "inline content"}
    compose("up", "--detach")
    (tmp_path / "compose.yaml").write_text(FILE.replace("WHO: one", "WHO: another"))
    compose("up", "--detach", "--timeout", "1")
    assert "machine another" in compose("logs", "--no-color", "machine")
    assert "10.214.8.9" in compose("exec", "-T", "machine", "ip", "-o", "addr", "show", "eth1")
    compose("down", "--volumes", "--timeout", "1")
    assert "trial" not in docker("ps", "-a") + docker("network", "ls") + docker("volume", "ls")


@pytest.mark.process_level
def test_compose_builds_by_the_classic_protocol(docker: Docker, tmp_path: Path) -> None:
    program = find_compose()
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text("FROM busybox\nARG WHO\nRUN echo built for $WHO > /who\nCMD cat /who\n")
    text = "name: built\nservices: {app: {build: {context: ./app, args: {WHO: compose}}, image: composed}}\n"
    (tmp_path / "compose.yaml").write_text(text)
    environment = {**docker.environment, "HOME": str(tmp_path), "DOCKER_BUILDKIT": "0"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "Successfully tagged composed:latest" in run("build")
    try:
        printed = run("up", "--build")
        assert "built for compose" in printed and "Using cache" in printed
    finally:
        run("down")
        docker("rmi", "-f", "composed")
