"""A disk as a container: the unchanged docker client and a real silod, from run to rm, and kill -9 of the daemon between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from silo.isolation.vm.machine import at_directory
from tests.support.daemon import Docker, docker_for, running_silod
from tests.system.vm_whole.machines import BOOT_LIMIT_S, debian, digest

LABEL = "com.silo.disk"
# busybox asks for an address and leaves the rest to a script
DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
busybox ip addr add "$ip/$mask" dev "$interface"
busybox ip route add default via "$router"
echo "nameserver $dns" > /etc/resolv.conf
"""


@pytest.fixture
def docker() -> Iterator[Docker]:
    debian()
    with running_silod(windows_pool="0", linux_pool="0", vm_pool="0") as daemon:
        client = docker_for(daemon)
        yield client
        if left := client("ps", "-aq").split():
            client("rm", "-f", "-v", *left)
        assert not list((daemon.run_root / "vms").iterdir())


def until(condition: Callable[[], bool], limit_s: float = BOOT_LIMIT_S, pause_s: float = 0.5) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it did not come true in time"
        time.sleep(pause_s)
    return time.monotonic() - began


def run(docker: Docker, name: str, disk: Path, *words: str, **options: str) -> float:
    """Seconds until its agent answers."""
    labels = {LABEL: str(disk), f"{LABEL}.firmware": "bios"}
    labels |= {f"{LABEL}.{key}": value for key, value in options.items()}
    flags = [f"--label={key}={value}" for key, value in labels.items()]
    docker("run", "-d", "--isolation", "hyperv", "--memory", "384m", "--name", name, *flags, *words, "disk")
    return until_answered(docker, name)


def until_answered(docker: Docker, name: str) -> float:
    def answers() -> bool:
        assert docker.inspect(name)["State"]["Running"], docker.try_("logs", name).stdout[-2000:]
        return docker.try_("exec", name, "/bin/true").returncode == 0

    return until(answers)


def ask(docker: Docker, name: str, script: str) -> str:
    return docker("exec", name, "/bin/sh", "-c", script)


def check_exec(docker: Docker, name: str) -> None:
    done = docker.try_("exec", name, "/bin/sh", "-c", "echo out; echo err >&2; exit 37")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 37)
    words = ("exec", "-i", "-e", "NAME=a b", "-w", "/var", "-u", "nobody", name, "/bin/sh", "-c")
    assert docker(*words, "cat; echo $NAME; pwd; id -un", stdin=b"in\n") == "in\na b\n/var\nnobody"
    missing = docker.try_("exec", name, "/no/such/program")
    assert missing.returncode == 127 and "cannot be started in the guest" in missing.stderr
    missing = docker.try_("exec", "-i", name, "/no/such/program", stdin=b"")
    assert missing.returncode == 127 and "cannot be started in the guest" in missing.stderr
    terminal = docker.try_("exec", "-t", name, "/bin/sh")
    assert terminal.returncode != 0 and "exec -t is not possible" in terminal.stderr + terminal.stdout


def check_files(docker: Docker, name: str, folder: Path) -> None:
    tree = folder / "tree"
    (tree / "sub").mkdir(parents=True)
    content = os.urandom(300_000)
    (tree / "sub/file").write_bytes(content)
    docker("cp", str(tree), f"{name}:/root/")
    assert ask(docker, name, "stat -c '%U %s' /root/tree/sub/file; ln -s tree /root/link") == f"root {len(content)}"
    for number, source in enumerate(("/root/tree", "/root/tree/.", "/root/link/.")):
        target = folder / f"back{number}"
        docker("cp", f"{name}:{source}", str(target))
        assert (target / "sub/file").read_bytes() == content
    docker("cp", f"{name}:/root/tree/sub/file", str(folder / "one"))
    assert (folder / "one").read_bytes() == content
    missing = docker.try_("cp", f"{name}:/no/such", str(folder))
    assert missing.returncode != 0 and "Could not find the file /no/such" in missing.stderr


def check_refusals(docker: Docker, name: str) -> None:
    for words, text in (
        (("diff", name), "diff is not possible"),
        (("commit", name), "commit is not possible"),
        (("kill", "-s", "USR1", name), "SIGTERM shuts it down"),
        (("update", "--memory", "512m", "--memory-swap", "512m", name), "stop it before you change --memory"),
        (("network", "connect", "second", name), "a second network is not supported with --disk"),
    ):
        done = docker.try_(*words)
        assert done.returncode != 0 and text in done.stderr, (words, done.stderr)


def check_looking(docker: Docker, name: str) -> None:
    assert "/usr/sbin/qemu-ga" in docker("top", name)
    assert docker("top", name, "-o", "pid,comm").splitlines()[1].split() == ["1", "systemd"]
    sample = json.loads(docker("stats", "--no-stream", "--format", "json", name))
    assert sample["MemUsage"].endswith("/ 384MiB") and not sample["MemUsage"].startswith("0B")
    with socket.socket(socket.AF_UNIX) as screen:
        container = docker.inspect(name)["Id"]
        # the test's own directories make this path longer than a socket's may be
        at_directory(docker.silod.run_root / "vms" / container, "screen.sock", screen.connect)
        screen.settimeout(20)
        assert screen.recv(12) == b"RFB 003.008\n"


def check_console(docker: Docker, name: str) -> None:
    """What the guest writes to its serial line is the log; what is attached writes to it."""
    ask(docker, name, "echo said > /dev/ttyS0")
    until(lambda: "said" in docker("logs", name), 10)
    ask(docker, name, "(head -n 1 < /dev/ttyS0 > /root/heard; echo heard > /dev/ttyS0) > /dev/null 2>&1 &")
    attached = docker.start("attach", "--sig-proxy=false", name, stdin=subprocess.PIPE)
    assert attached.stdin is not None
    attached.stdin.write(b"typed\n")
    attached.stdin.flush()
    until(lambda: "typed" in ask(docker, name, "cat /root/heard"), 20)
    attached.kill()
    attached.wait()


def check_network(docker: Docker, name: str) -> None:
    """Its address by DHCP, and a published port."""
    shown = docker.inspect(name)["NetworkSettings"]["Networks"]["bridge"]
    assert ask(docker, name, "cat /sys/class/net/eth0/address") == shown["MacAddress"]
    docker("exec", "-i", name, "/bin/sh", "-c", "cat > /root/dhcp; chmod +x /root/dhcp", stdin=DHCP_SCRIPT.encode())
    ask(docker, name, "busybox ip link set eth0 up; busybox udhcpc -i eth0 -n -q -s /root/dhcp -x hostname:x 2>&1")
    assert shown["IPAddress"] in ask(docker, name, "busybox ip addr show eth0")
    assert f"via {shown['Gateway']}" in ask(docker, name, "busybox ip route")
    ask(docker, name, "echo served > /root/page; busybox httpd -p 80 -h /root")
    assert fetch(docker) == "served\n"


def fetch(docker: Docker) -> str:
    words = docker.silod.within_network("curl", "-sf", "--max-time", "10", "http://127.0.0.1:18083/page")
    return subprocess.run(words, capture_output=True, text=True).stdout


def check_pause(docker: Docker, name: str) -> None:
    docker("pause", name)
    done = docker.try_("exec", name, "/bin/true")
    assert done.returncode != 0 and "paused" in done.stderr
    docker("unpause", name)
    assert ask(docker, name, "echo awake") == "awake"


@pytest.mark.timeout(900)
def test_a_snapshot_from_run_to_rm(docker: Docker, tmp_path: Path) -> None:
    disk = debian()
    before = digest(disk)
    docker("network", "create", "second")
    booted_s = run(docker, "os", disk, "-i", "-p", "18083:80")
    print(f"agent after {booted_s:.1f} s")
    check_exec(docker, "os")
    check_files(docker, "os", tmp_path)
    check_refusals(docker, "os")
    check_looking(docker, "os")
    check_console(docker, "os")
    check_network(docker, "os")
    check_pause(docker, "os")

    # the daemon's end is not the machine's
    pid = docker.inspect("os")["State"]["Pid"]
    docker.silod.kill()
    docker.silod.start()
    assert docker.inspect("os")["State"]["Pid"] == pid
    assert ask(docker, "os", "cat /root/heard; echo kept > /root/kept; sync") == "typed"
    assert fetch(docker) == "served\n"
    ask(docker, "os", "busybox udhcpc -i eth0 -n -q -s /bin/true 2>&1; echo again > /dev/ttyS0")
    until(lambda: "again" in docker("logs", "os"), 10)

    began = time.monotonic()
    docker("stop", "os")
    print(f"stopped in {time.monotonic() - began:.1f} s")
    state = docker.inspect("os")["State"]
    assert state["ExitCode"] == 0, (state, docker.silod.log.read_text()[-2000:], docker("logs", "os")[-1000:])
    done = docker.try_("cp", "os:/root/kept", str(tmp_path))
    assert done.returncode != 0 and "only its own system can read its disk" in done.stderr

    # what it wrote is there when it starts again, and nowhere else
    docker("start", "os")
    until_answered(docker, "os")
    assert ask(docker, "os", "cat /root/kept") == "kept"
    pid = docker.inspect("os")["State"]["Pid"]
    docker.silod.kill()
    os.kill(pid, signal.SIGKILL)
    docker.silod.start()
    state = docker.inspect("os")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    docker("rm", "os")
    assert digest(disk) == before
    until_gone_with(docker)


@pytest.mark.timeout(900)
def test_a_persistent_disk_is_one_containers(docker: Docker, tmp_path: Path) -> None:
    own = tmp_path / "own.raw"
    shutil.copyfile(debian(), own)
    run(docker, "writer", own, persist="true")
    for persist in ("true", "false"):
        flags = (f"--label={LABEL}={own}", f"--label={LABEL}.persist={persist}", f"--label={LABEL}.firmware=bios")
        done = docker.try_("run", "--rm", "--isolation", "hyperv", "--memory", "384m", *flags, "disk")
        assert done.returncode != 0 and "another machine" in done.stderr and str(own) in done.stderr
    ask(docker, "writer", "echo kept-in-the-file > /root/kept; sync")
    # a shutdown from within is an end like any other
    waiting = docker.start("wait", "writer")
    docker.try_("exec", "-d", "writer", "systemctl", "poweroff")
    assert waiting.communicate(timeout=90)[0] == b"0\n"
    assert b"kept-in-the-file\n" in own.read_bytes()
    moved = tmp_path / "moved.raw"
    own.rename(moved)
    done = docker.try_("start", "writer")
    assert done.returncode != 0 and f"there is no disk {own}" in done.stderr
    moved.rename(own)


def test_a_disk_that_changed_is_refused(docker: Docker, tmp_path: Path) -> None:
    own = tmp_path / "own.raw"
    shutil.copyfile(debian(), own)
    flags = (f"--label={LABEL}={own}", f"--label={LABEL}.firmware=bios", "--memory", "384m")
    docker("run", "-d", "--isolation", "hyperv", "--name", "os", *flags, "disk")
    done = docker.try_("exec", "os", "/bin/true")
    assert done.returncode != 0 and "needs the guest agent" in done.stderr
    docker("kill", "os")
    assert docker.inspect("os")["State"]["ExitCode"] == 137
    with open(own, "r+b") as file:
        file.write(b"changed")
    done = docker.try_("start", "os")
    assert done.returncode != 0 and "has changed since this container was made of it" in done.stderr


def until_gone_with(docker: Docker) -> None:
    assert not list((docker.silod.run_root / "vms").iterdir())
