"""Root in a privileged container of a virtual machine does its worst: the host, the daemon and other containers go on.

Each test ends with the same look: the daemon answers, another container lived through it, the hostile one can be removed, and
nothing of it is left (no QEMU, no cgroup, no mount, no directory).
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from silo.host.cgroups import cgroup_parent
from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker, docker_for, running_silod
from tests.support.images import busybox_image_tar
from tests.support.probes import require, require_program
from tests.support.windows import cache_root

pytestmark = pytest.mark.system

SETTINGS = {"default_isolation": "hyperv", "linux_pool": "0", "windows_pool": "0", "vm_pool": "0"}
GIBIBYTE = 1 << 30
HOSTILE = "hostile"


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    require_program("qemu-system-x86_64", "qemu-system-x86")
    find_vm_image()
    settings = {**SETTINGS, "cache_root": str(cache_root()), "vm_scratch_bytes": str(GIBIBYTE)}
    with running_silod(**settings) as daemon:
        client = docker_for(daemon)
        client("load", "-i", str(busybox_image_tar(daemon.root / "busybox.tar")))
        client("run", "-d", "--name", "bystander", "busybox", "sleep", "100000")
        yield client
        if left := client("ps", "-aq").split():
            client("rm", "-f", "-v", *left)


@pytest.fixture(autouse=True)
def host_untouched(docker: Docker) -> Iterator[None]:
    """The look that every test ends with."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    yield
    assert docker("version", "--format", "{{.Server.Version}}")
    assert docker("exec", "bystander", "echo", "alive") == "alive"
    if docker.try_("inspect", HOSTILE).returncode:
        return  # it was skipped
    container_id = docker.inspect(HOSTILE)["Id"]
    docker("rm", "-f", HOSTILE)
    assert Path("/proc/sys/kernel/random/boot_id").read_text() == boot
    until(lambda: not traces(docker, container_id), lambda: str(traces(docker, container_id)))


def traces(docker: Docker, container_id: str) -> list[str]:
    """What is left of a container: files that bear its name, mounts, and machines besides the bystander's.

    A cgroup with a process in it cannot be removed: where there is no group there is no QEMU.
    """
    roots = (docker.silod.run_root, docker.silod.data_root)
    # a walk that does not mind what goes away under it
    walks = (
        (Path(place), name) for root in roots for place, *both in os.walk(root) for names in both for name in names
    )
    found = [str(place / name) for place, name in walks if container_id in name]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if container_id in line]
    groups = {path.name for path in groups_of(docker)}
    places = {path.name for path in (docker.silod.run_root / "vms").iterdir()}
    others = [name for names in (groups, places) if len(names) != 1 for name in names]
    return [*found, *mounts, *others]


def groups_of(docker: Docker) -> list[Path]:
    parent = f"{cgroup_parent(docker.silod.run_root)}-vm"
    found = (*Path("/sys/fs/cgroup").glob(f"{parent}/*"), *Path("/sys/fs/cgroup").glob(f"*/{parent}/*"))
    return [path for path in found if path.is_dir()]


def machines(docker: Docker) -> list[int]:
    """Every process in the daemon's cgroups for machines."""
    return [int(word) for group in groups_of(docker) for word in (group / "cgroup.procs").read_text().split()]


def until(condition: Callable[[], bool], otherwise: Callable[[], str] = str, timeout_s: float = 80) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def attack(docker: Docker, script: str, *flags: str) -> None:
    docker("run", "-d", "--name", HOSTILE, "--privileged", *flags, "busybox", "sh", "-c", script)


def ended(docker: Docker, timeout_s: float = 80) -> dict[str, object]:
    """The hostile container's state, once it has ended."""
    until(lambda: not docker.inspect(HOSTILE)["State"]["Running"], lambda: docker("logs", HOSTILE), timeout_s)
    state: dict[str, object] = docker.inspect(HOSTILE)["State"]
    return state


WRITES = """
for file in /dev/mem /dev/port /dev/vda /dev/vdb /dev/pmem0 /dev/pmem1 /dev/nvram; do
    [ -e $file ] && dd if=/dev/urandom of=$file bs=64k count=64 2>/dev/null
done
# a byte at a time, which takes a slow machine long; for a flood there is a test of its own
dd if=/dev/urandom of=/dev/ttyS0 bs=16k count=1 2>/dev/null
for image in /dev/vda /dev/pmem0 /dev/pmem1; do
    [ -b $image ] && blockdev --setrw $image; dd if=/dev/urandom of=$image bs=64k count=16 2>/dev/null
done
modprobe dummy; insmod /dev/null; echo x > /sys/kernel/uevent_helper
true
"""


def test_writing_to_every_device(docker: Docker) -> None:
    images = [*Path(docker.silod.data_root, "vm/images").glob("*.erofs"), find_vm_image().directory / "root.erofs"]
    before = [path.read_bytes()[:4096] + str(path.stat().st_mtime_ns).encode() for path in images]
    attack(docker, WRITES)
    ended(docker)
    assert [path.read_bytes()[:4096] + str(path.stat().st_mtime_ns).encode() for path in images] == before
    # the template is as it was, too
    assert docker("run", "--rm", "busybox", "echo", "whole") == "whole"


@pytest.mark.parametrize(("script", "code"), [("reboot -f", 129), ("poweroff -f", 130)])
def test_a_reboot_is_the_containers_end(docker: Docker, script: str, code: int) -> None:
    """Its own process 1 ends, as the kernel does it in any PID namespace: SIGHUP and SIGINT."""
    attack(docker, f"sleep 0.3; {script}; sleep 1000")
    assert ended(docker)["ExitCode"] == code


def test_a_reset_ends_the_machine(docker: Docker) -> None:
    attack(docker, "sleep 0.3; echo b > /proc/sysrq-trigger; sleep 1000")
    state = ended(docker)
    assert state["ExitCode"] == 137 and "the virtual machine has ended" in str(state["Error"]), state


def test_a_panic_is_told_with_the_consoles_last_lines(docker: Docker) -> None:
    attack(docker, "sleep 0.3; echo c > /proc/sysrq-trigger; sleep 1000")
    state = ended(docker)
    assert state["ExitCode"] == 137, state
    assert "kernel panicked" in str(state["Error"]) and "sysrq triggered crash" in str(state["Error"]).lower(), state


def daemon_memory_bytes(docker: Docker) -> int:
    assert docker.silod._process is not None
    pages = Path(f"/proc/{docker.silod._process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def _size(path: Path) -> int:
    """0 of a file that takes another's place just now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_flood_of_output(docker: Docker) -> None:
    attack(docker, "yes | tr y x; true", "--log-opt", "max-size=1m")
    before = daemon_memory_bytes(docker)
    log = docker.silod.data_root / "containers" / docker.inspect(HOSTILE)["Id"]
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        assert sum(map(_size, log.glob("log*"))) < 3 << 20
        assert daemon_memory_bytes(docker) - before < 64 << 20
        time.sleep(0.3)
    assert docker.inspect(HOSTILE)["State"]["Running"]


def test_a_flood_on_the_console_and_in_the_kernels_log(docker: Docker) -> None:
    script = "while :; do echo flood > /dev/ttyS0; echo flood > /dev/kmsg; done"
    attack(docker, script)
    before = daemon_memory_bytes(docker)
    time.sleep(5)
    assert daemon_memory_bytes(docker) - before < 32 << 20
    assert docker.inspect(HOSTILE)["State"]["Running"]


# The port is the agent's alone until its driver is taken away from it.
STEAL = """
sleep 0.5
port=$(basename /sys/class/virtio-ports/vport*)
echo x 2>/dev/null > /dev/$port || echo refused
device=$(basename $(readlink -f /sys/class/virtio-ports/$port/device))
cd /sys/bus/virtio/drivers/virtio_console
echo $device > unbind; echo $device > bind; sleep 0.2
port=$(basename /sys/class/virtio-ports/vport*)
"""


@pytest.mark.parametrize(
    "nonsense",
    [
        "head -c 100000 /dev/urandom",
        # a frame of 4 GiB, one of a type that is not there, a reply that is no JSON
        "printf '\\377\\377\\377\\377\\004\\000\\000\\000x'",
        "printf '\\001\\000\\000\\000\\143\\000\\000\\000x'",
        "printf '\\004\\000\\000\\000\\004\\000\\000\\000nope'",
    ],
)
def test_nonsense_on_the_agents_port(docker: Docker, nonsense: str) -> None:
    attack(docker, f"{STEAL}\n{nonsense} > /dev/$port; sleep 1000")
    state = ended(docker)
    assert state["ExitCode"] == 137 and "the virtual machine was ended: a malformed frame" in str(state["Error"]), state
    assert "refused" in docker.try_("logs", HOSTILE).stdout


def test_a_full_disk_is_full_inside_alone(docker: Docker) -> None:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", docker.silod.data_root], capture_output=True, text=True, check=True
    )
    require("a disk", done.stdout.strip() != "tmpfs", "the tests' directories are in a tmpfs, which is memory")
    free = os.statvfs(docker.silod.data_root).f_bavail
    attack(docker, "dd if=/dev/zero of=/big bs=1M; echo code $?; touch /more || true; sleep 1000")
    until(lambda: "code" in docker("logs", HOSTILE), timeout_s=120)
    done = docker.try_("logs", HOSTILE)
    assert "No space left" in done.stderr and "code 1" in done.stdout
    assert (free - os.statvfs(docker.silod.data_root).f_bavail) * os.statvfs("/").f_frsize < 2 * GIBIBYTE
    assert docker("exec", HOSTILE, "echo", "still") == "still"


BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1000"


@pytest.mark.parametrize("flags", [("--pids-limit", "64"), ()])
def test_forking_without_end(docker: Docker, flags: tuple[str, ...]) -> None:
    attack(docker, f"{BOMB}", *flags)
    time.sleep(4)
    assert len(set(machines(docker))) <= 4, "processes of a guest are none of the host's"


@pytest.mark.parametrize("flags", [("--memory", "64m"), ()])
def test_eating_all_memory(docker: Docker, flags: tuple[str, ...]) -> None:
    attack(docker, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", *flags)
    state = ended(docker)
    assert state["ExitCode"] == 137, state
    assert state["OOMKilled"] or "panick" in str(state["Error"]), state


def test_a_guest_that_stands_still(docker: Docker) -> None:
    """Nothing in it answers any more: neither its agent nor QEMU."""
    attack(docker, "echo last words > /dev/ttyS0; sleep 1000")
    time.sleep(0.5)
    os.kill(docker.inspect(HOSTILE)["State"]["Pid"], signal.SIGSTOP)
    began = time.monotonic()
    docker("kill", HOSTILE)
    assert time.monotonic() - began < 30
    state = ended(docker)
    assert state["ExitCode"] == 137 and "could not be told" in str(state["Error"]), state
    assert "last words" in str(state["Error"])
