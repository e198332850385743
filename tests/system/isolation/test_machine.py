"""The twelfth point: a kernel of one's own, in a machine whose QEMU is nobody of the host's.

The first tests look from inside, the others at QEMU from outside, as an attacker has it who has broken out of his machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from silo.host.cgroups import cgroup_parent
from silo.isolation.slots import FIRST_ID
from tests.support.daemon import Docker
from tests.system.isolation.meeting import require_level, start_linux, start_silo

pytestmark = pytest.mark.system

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Inside:
    """A running container in a machine: its name, QEMU's pid, and how a file of the guest's kernel is read from inside."""

    name: str
    pid: int
    read: tuple[str, ...]
    separator: str

    def status(self, name: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.partition("\t")[2]
        raise KeyError(name)


@pytest.fixture(scope="module", params=["linux", "windows"])
def inside(request: pytest.FixtureRequest, docker: Docker) -> Iterator[Inside]:
    require_level("hyperv")
    name, isolation = f"machine-{request.param}", ("--isolation", "hyperv", "--memory", "96m", "--cpus", "1")
    if request.param == "linux":
        start_linux(docker, request.getfixturevalue("linux_folder"), name, *isolation)
        read, separator = ("cat",), "/"
    else:
        # Wine's services want more than the Linux container's limit
        start_silo(docker, request.getfixturevalue("folder"), name, *isolation[:2], "--memory", "512m")
        read, separator = ("cmd", "/c", "type"), "\\"
    pid = docker.inspect(name)["State"]["Pid"]
    yield Inside(name, pid, read, separator)
    docker("rm", "-f", name)


def _read(docker: Docker, inside: Inside, path: str) -> str:
    place = path if inside.separator == "/" else "\\\\?\\unix" + path.replace("/", "\\")
    return docker("exec", inside.name, *inside.read, place).strip()


def test_the_kernel_is_another_one(docker: Docker, inside: Inside) -> None:
    assert os.uname().version not in _read(docker, inside, "/proc/version")
    assert _read(docker, inside, BOOT_ID) != Path(BOOT_ID).read_text().strip()


def test_its_processors_and_memory_are_the_machines(docker: Docker, inside: Inside) -> None:
    total = int(_read(docker, inside, "/proc/meminfo").split()[1])
    host = int(Path("/proc/meminfo").read_text().split()[1])
    assert total < host / 2
    assert _read(docker, inside, "/proc/cpuinfo").count("processor\t") <= (os.cpu_count() or 1)


def test_no_process_of_the_host_is_there(docker: Docker, inside: Inside) -> None:
    if inside.separator == "\\":
        assert "silo-vm" not in docker("exec", inside.name, "cmd", "/c", "tasklist")
        return
    names = docker("exec", inside.name, "sh", "-c", "cat /proc/[0-9]*/comm").split()
    assert names and set(names) <= {"cat", "sh", "busybox"}, names


def test_qemu_is_nobody_in_its_own_namespaces(inside: Inside) -> None:
    for kind in NAMESPACES:
        assert Path(f"/proc/{inside.pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink(), kind
    ids = {int(word) for name in ("Uid", "Gid") for word in inside.status(name).split()}
    assert min(ids) >= FIRST_ID
    assert inside.status("NoNewPrivs") == "1" and inside.status("Seccomp") == "2"
    root = Path(f"/proc/{inside.pid}/root")
    assert {path.name for path in root.iterdir()} == {"bin", "dev", "folders", "guest", "lib", "lib64", "proc", "usr"}
    # the file server's capabilities, in a user namespace in which nothing but its folders is
    few = sum(1 << number for number in (0, 1, 2, 3, 4))
    assert int(inside.status("CapEff"), 16) & ~few == int(inside.status("CapBnd"), 16) & ~few == 0
    mapping = Path(f"/proc/{inside.pid}/uid_map").read_text().split()
    assert mapping[0] == "0" and int(mapping[1]) in ids


def test_two_machines_are_two_users(docker: Docker, linux_folder: Path, inside: Inside) -> None:
    start_linux(docker, linux_folder, "second", "--isolation", "hyperv")
    other = Inside("second", docker.inspect("second")["State"]["Pid"], ("cat",), "/")
    assert other.status("Uid") != inside.status("Uid")
    assert Path(f"/proc/{other.pid}/ns/user").readlink() != Path(f"/proc/{inside.pid}/ns/user").readlink()
    docker("rm", "-f", "second")


def test_the_daemons_sockets_are_out_of_qemus_reach(docker: Docker, inside: Inside) -> None:
    root = Path(f"/proc/{inside.pid}/root")
    for path in (docker.silod.socket, docker.silod.run_root, docker.silod.data_root, "/etc/passwd", "/root", "/run"):
        assert not (root / str(path).lstrip("/")).exists(), path
    # nor by a descriptor that it was left: sockets are its own ends, files its own disks
    files = [str(place.readlink()) for place in Path(f"/proc/{inside.pid}/fd").iterdir()]
    own = docker.inspect(inside.name)["Id"]
    named = [
        file
        for file in files
        if file.startswith("/") and not file.startswith(("/dev/", "/guest/", "/memfd:", "/folders"))
    ]
    assert all(own in file or "/vm/images/" in file for file in named), named


def test_the_daemon_is_not_on_the_machines_network(docker: Docker, inside: Inside) -> None:
    """What listens on the host's loopback does not listen on the container's, and nothing else of QEMU's network is up."""
    links = Path(f"/proc/{inside.pid}/net/dev").read_text().splitlines()[2:]
    names = {line.split(":")[0].strip() for line in links}
    assert names == {"lo", "eth0", "t-eth0", "b-eth0"}
    unix = Path(f"/proc/{inside.pid}/net/unix").read_text()
    assert str(docker.silod.socket) not in unix


def test_its_cgroup_limits_it(docker: Docker, inside: Inside) -> None:
    parent = f"{cgroup_parent(docker.silod.run_root)}-vm"
    groups = [line.partition("::" if line[0] == "0" else "pids:")[2] for line in own_groups(inside.pid)]
    group = next(name.strip("/") for name in groups if name.strip("/").startswith(f"{parent}/"))
    found = {path.name: path.read_text().strip() for path in _files(group)}
    memory = int(found.get("memory.max") or found["memory.limit_in_bytes"])
    assert 0 < memory < 3 << 30
    assert found["pids.max"] == "256"
    if inside.separator == "/":
        assert found.get("cpu.max", "100000 100000").split()[0] == "100000"
        assert found.get("cpu.cfs_quota_us", "100000") == "100000"


def own_groups(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()


def _files(group: str) -> list[Path]:
    wanted = ("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us")
    hierarchies = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir())
    return [path for root in hierarchies for name in wanted if (path := root / group / name).exists()]
