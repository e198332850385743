"""kill -9 of the daemon at any moment: virtual machines go on, nothing of them is lost or doubled, and none is left over."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from silo.host.cgroups import cgroup_parent
from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker, Silod, docker_for, running_silod
from tests.support.images import busybox_image_tar
from tests.support.probes import require_program
from tests.support.windows import cache_root

pytestmark = pytest.mark.system

SETTINGS = {"default_isolation": "hyperv", "linux_pool": "0", "windows_pool": "0", "vm_pool": "0"}
COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


def settings() -> dict[str, str]:
    require_program("qemu-system-x86_64", "qemu-system-x86")
    find_vm_image()
    return {**SETTINGS, "cache_root": str(cache_root())}


def client_of(daemon: Silod) -> Docker:
    client = docker_for(daemon)
    client("load", "-i", str(busybox_image_tar(daemon.root / "busybox.tar")))
    return client


@pytest.fixture(scope="module")
def session() -> Iterator[Docker]:
    with running_silod(**settings()) as daemon:
        yield client_of(daemon)


@pytest.fixture
def docker(session: Docker) -> Iterator[Docker]:
    """Its containers are removed afterwards, and then no machine is left."""
    yield session
    if left := session("ps", "-aq").split():
        session("rm", "-f", "-v", *left)
    until(lambda: not machines(session), lambda: str(machines(session)))
    places = session.silod.run_root / "vms"
    until(lambda: not list(places.iterdir()), lambda: str(list(places.iterdir())))


def machines(docker: Docker) -> dict[int, str]:
    """pid of each QEMU of this daemon's → its user."""
    group, found = cgroup_parent(docker.silod.run_root), {}
    for status in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if group in status.read_text() and (status.parent / "comm").read_text().strip() == "silo-vm":
                found[int(status.parent.name)] = str((status.parent / "status").stat().st_uid)
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], otherwise: Callable[[], str] = str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def reborn(docker: Docker, away_s: float = 0.0) -> None:
    docker.silod.kill()
    time.sleep(away_s)
    docker.silod.start()


def numbers(docker: Docker, name: str) -> list[int]:
    return [int(line) for line in docker("logs", name).splitlines()]


def test_output_is_neither_lost_nor_doubled(docker: Docker) -> None:
    docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    for away_s in (0.0, 0.3, 1.0):
        time.sleep(random.uniform(0.1, 0.5))
        reborn(docker, away_s)
    time.sleep(0.5)
    assert docker.inspect("counter")["State"]["Running"]
    found = numbers(docker, "counter")
    assert found == list(range(len(found))) and len(found) > 25


def test_much_output_while_the_daemon_is_killed(docker: Docker) -> None:
    script = "i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done; exit 6"
    docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", script)
    for _ in range(3):
        time.sleep(0.2)
        reborn(docker)
    assert docker("wait", "talker") == "6"
    assert numbers(docker, "talker") == list(range(30000))


def test_ends_that_no_daemon_saw(docker: Docker) -> None:
    docker("run", "-d", "--name", "plain", "busybox", "sh", "-c", "sleep 0.7; echo last; exit 7")
    docker("run", "-d", "--rm", "--name", "removed", "busybox", "sh", "-c", "sleep 0.7")
    reborn(docker, away_s=2.0)
    assert docker("wait", "plain") == "7"
    assert docker("logs", "plain") == "last"
    until(lambda: docker.try_("inspect", "removed").returncode != 0)


def test_a_paused_one_stays_paused(docker: Docker) -> None:
    docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    time.sleep(0.5)
    docker("pause", "counter")
    before = numbers(docker, "counter")
    reborn(docker)
    assert docker.inspect("counter")["State"]["Paused"]
    time.sleep(0.5)
    assert len(numbers(docker, "counter")) <= len(before) + 2
    docker("unpause", "counter")
    until(lambda: len(numbers(docker, "counter")) > len(before) + 5)
    found = numbers(docker, "counter")
    assert found == list(range(len(found)))


def test_exec_stop_and_start_after_it_was_found_again(docker: Docker) -> None:
    docker("run", "-di", "--name", "found", "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")
    reborn(docker)
    assert docker("exec", "found", "echo", "here") == "here"
    docker("stop", "found")
    assert docker.inspect("found")["State"]["ExitCode"] == 3
    docker("start", "found")
    assert docker("exec", "found", "echo", "again") == "again"


@pytest.mark.parametrize("moment_s", [0.02, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9])
def test_killed_while_a_container_starts(docker: Docker, moment_s: float) -> None:
    docker("run", "--rm", "busybox", "true")  # the template is there
    with docker.start("run", "-d", "--name", "begun", "busybox", "sleep", "1000") as begun:
        time.sleep(moment_s)
        docker.silod.kill()
        begun.wait(20)
    docker.silod.start()
    known = docker("ps", "-aq", "--filter", "name=begun").split()
    running = docker("ps", "-q", "--filter", "name=begun").split()
    until(lambda: len(machines(docker)) == len(running), lambda: f"{machines(docker)} for {running}")
    assert len(running) <= len(known) <= 1
    if running:
        assert docker("exec", "begun", "echo", "alive") == "alive"
    elif known:
        docker("start", "begun")
        assert docker("exec", "begun", "echo", "alive") == "alive"


@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.15, 0.4])
def test_killed_while_a_container_is_removed(docker: Docker, moment_s: float) -> None:
    docker("run", "-d", "--name", "leaving", "busybox", "sleep", "1000")
    with docker.start("rm", "-f", "leaving") as leaving:
        time.sleep(moment_s)
        docker.silod.kill()
        leaving.wait(20)
    docker.silod.start()
    # it may be whole, on its way to its end, or gone
    docker.try_("rm", "-f", "leaving")
    assert "leaving" not in docker("ps", "-a", "--format", "{{.Names}}").split()
    until(lambda: not machines(docker), lambda: str(machines(docker)))


def test_killed_while_a_template_is_made(docker: Docker) -> None:
    reborn(docker)
    with docker.start("run", "-d", "--name", "first", "busybox", "sleep", "1000") as first:
        until(lambda: bool(machines(docker)))
        time.sleep(1)
        docker.silod.kill()
        first.wait(20)
    docker.silod.start()
    until(lambda: not machines(docker), lambda: str(machines(docker)))
    docker.try_("start", "first")


def test_two_daemons_do_not_take_one_anothers_machines(docker: Docker) -> None:
    docker("run", "-d", "--name", "ours", "busybox", "sleep", "1000")
    with running_silod(**settings()) as daemon:
        other = client_of(daemon)
        other("run", "-d", "--name", "theirs", "busybox", "sleep", "1000")
        assert not set(machines(docker)) & set(machines(other))
        assert not set(machines(docker).values()) & set(machines(other).values()), "two machines of one user"
        reborn(docker)
        reborn(other)
        other("rm", "-f", "theirs")
        assert not machines(other) and docker("exec", "ours", "echo", "alive") == "alive"


def test_a_machine_that_is_gone_is_told(docker: Docker) -> None:
    docker("run", "-d", "--name", "gone", "busybox", "sleep", "1000")
    docker.silod.kill()
    for pid in machines(docker):
        subprocess.run(["kill", "-9", str(pid)], check=True)
    docker.silod.start()
    state = docker.inspect("gone")["State"]
    assert not state["Running"] and state["ExitCode"] != 0
    docker("start", "gone")
    assert docker("exec", "gone", "echo", "alive") == "alive"
