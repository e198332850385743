"""Containers that were begun before anybody asked for them: in machines that wait in the pool, in templates of an image."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.isolation.vm.vm_pool import _REFILL_DELAY_S
from tests.support.daemon import Docker, running_silod
from tests.support.windows import load_windows
from tests.system.vm.test_survival import client_of, machines, settings, until

pytestmark = pytest.mark.system

PARKED = ("--label", "com.silo.vm.parked=true")
# everything that a program can tell of what it was started with; fd 3 is that of `ls` itself
REPORT = """
env | grep -v ^HOSTNAME= | sort; pwd; id; umask; ls /proc/self/fd; hostname
grep -E 'Cap|Seccomp|NoNewPrivs|Groups|SigIgn|SigBlk' /proc/self/status
cut -d' ' -f4- /proc/self/mountinfo | sed 's/ - / /' | cut -d' ' -f1-3,5 | sort
cat /proc/self/limits /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
readlink /proc/self/ns/user; stat -c %a%u%g /dev/zero /dev/shm /proc/kcore; ls -A /; cat /proc/1/comm; ip -o link | wc -l
test -t 0 && stty size; ls -la /data 2>/dev/null; true
"""


@pytest.fixture(scope="module")
def session() -> Iterator[Docker]:
    with running_silod(**{**settings(), "vm_pool": "1"}) as daemon:
        yield client_of(daemon)


@pytest.fixture
def docker(session: Docker) -> Iterator[Docker]:
    yield session
    if left := session("ps", "-aq").split():
        session("rm", "-f", "-v", *left)


def waiting(docker: Docker, *options: str, words: tuple[str, ...] = ("true",)) -> int:
    """The pid of the one machine that waits for a container with these options."""
    taken = {docker.inspect(name)["State"]["Pid"] for name in docker("ps", "-q").split()}
    docker("run", "--rm", *options, "busybox", *words)
    # by then what waited for another makes room, and the machine of that run is on its way out
    time.sleep(_REFILL_DELAY_S + 0.5)
    found: set[int] = set()

    def is_ready() -> bool:
        found.clear()
        found.update(set(machines(docker)) - taken)
        return len(found) == 1 and stands_still(found) and found == set(machines(docker)) - taken

    until(is_ready, lambda: f"{machines(docker)} beside {taken}", 60)
    return found.pop()


def stands_still(pids: set[int]) -> bool:
    """One that waits uses no processor."""
    used = [processor_ticks(pid) for pid in pids]
    time.sleep(0.3)
    return used == [processor_ticks(pid) for pid in pids]


def processor_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])


def test_a_container_gets_the_machine_that_waits(docker: Docker) -> None:
    pid = waiting(docker)
    container = docker(
        "run",
        "-d",
        "-e",
        "A=b c",
        "busybox",
        "sh",
        "-c",
        'echo "$A $HOSTNAME $0 $1" "$(hostname)"; sleep 100',
        "x",
        "ü y",
    )
    assert docker.inspect(container)["State"]["Pid"] == pid
    until(lambda: bool(docker("logs", container)))
    assert docker("logs", container) == f"b c {container[:12]} x ü y {container[:12]}"
    assert container[:12] in docker("exec", container, "cat", "/etc/hosts")
    docker("stop", "-t", "0", container)
    # its second start is a cold one, on the same disk
    docker("start", container)
    assert docker("exec", container, "hostname") == container[:12]


@pytest.mark.parametrize(
    "options",
    [
        ("-e", "PATH=/bin", "-e", "HOME=/there", "-h", "named"),
        ("-u", "1000:1000", "-w", "/new/directory"),
        ("--memory", "64m", "--pids-limit", "50", "--ulimit", "nofile=100:200"),
        ("--cap-drop", "ALL", "--cap-add", "NET_RAW", "--security-opt", "no-new-privileges"),
        ("-v", "kept:/data", "-v", "/usr/share:/deep/er/shared:ro"),
        ("--network", "none"),
        ("-t",),
        ("-i", "--shm-size", "32m", "--group-add", "7"),
    ],
)
def test_it_is_what_one_begun_for_it_is(docker: Docker, options: tuple[str, ...]) -> None:
    pid = waiting(docker, *options)
    begun, cold = (
        docker("create", "--name", name, *options, "busybox", "sh", "-c", REPORT) for name in ("begun", "cold")
    )
    # a container that has a disk already is not begun ahead
    docker("cp", "/etc/hostname", "cold:/tmp/there-before")
    docker("start", "begun")
    if "none" not in options:
        assert docker.inspect(begun)["State"]["Pid"] == pid
    docker("wait", "begun")
    docker("start", "cold")
    docker("wait", "cold")
    reports = [docker("logs", container).replace(container[:12], "NAME") for container in (begun, cold)]
    assert reports[0] == reports[1] and len(reports[0]) > 1000
    changes = [set(docker("diff", name).splitlines()) for name in ("begun", "cold")]
    assert changes[1] - changes[0] <= {"A /tmp/there-before", "C /tmp"} and changes[0] <= changes[1]


@pytest.mark.parametrize("options", [(), PARKED])
def test_they_share_no_random_number(docker: Docker, options: tuple[str, ...]) -> None:
    script = """
        head -c 16 /dev/urandom | od -An -tx1; head -c 16 /dev/random | od -An -tx1
        cat /proc/sys/kernel/random/uuid; grep stack /proc/self/maps
    """
    seen = []
    for _ in range(3):
        waiting(docker, *options)
        seen.append(docker("run", "--rm", *options, "busybox", "sh", "-c", script).splitlines())
    for place in range(4):
        assert len({answers[place] for answers in seen}) == 3, seen


def test_a_program_that_is_not_there(docker: Docker) -> None:
    pid = waiting(docker)
    failed = docker.try_("run", "--name", "none", "busybox", "/no/program")
    assert failed.returncode == 127 and "/no/program" in failed.stderr
    assert docker.inspect("none")["State"]["ExitCode"] == 127 and pid not in machines(docker)
    waiting(docker)
    assert docker.try_("run", "--rm", "busybox", "/etc/passwd").returncode == 126


def test_a_folder_is_shared_in_both_directions(docker: Docker, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "mine").write_text("from the host\n")
    pid = waiting(docker)
    container = docker("run", "-d", "-v", f"{tmp_path}:/place", "-v", f"{tmp_path}:/only:ro", "busybox", "sleep", "100")
    assert docker.inspect(container)["State"]["Pid"] == pid
    assert docker("exec", container, "cat", "/place/mine") == "from the host"
    docker("exec", container, "sh", "-c", "echo from inside > /place/its")
    assert (tmp_path / "its").read_text() == "from inside\n"
    assert docker.try_("exec", container, "touch", "/only/no").returncode != 0


def test_networks_in_the_first_moment(docker: Docker) -> None:
    docker("network", "create", "ahead")
    docker("run", "-d", "--name", "there", "--network", "ahead", "busybox", "sleep", "100")
    for number in range(3):
        waiting(docker)
        name = f"comes{number}"
        docker("run", "-d", "--name", name, "busybox", "sleep", "100")
        docker("network", "connect", "ahead", name)
        assert docker("exec", name, "ping", "-c", "1", "there").count("1 packets received") == 1
        docker("rm", "-f", name)
    docker("rm", "-f", "there")
    docker("network", "rm", "ahead")


def test_commit_of_what_was_begun_ahead(docker: Docker) -> None:
    waiting(docker)
    docker("run", "--name", "source", "busybox", "sh", "-c", "echo kept > /etc/kept; rm /bin/wc")
    docker("commit", "source", "from-ahead")
    assert docker("run", "--rm", "from-ahead", "sh", "-c", "cat /etc/kept; ls /bin/wc 2>&1 | cut -c1-3") == "kept\nls:"


@pytest.mark.parametrize("moment_s", [0.0, 0.03])
def test_killed_while_a_container_takes_its_machine(docker: Docker, moment_s: float) -> None:
    waiting(docker)
    caller = docker.start("run", "--name", "cut", "busybox", "sh", "-c", "echo it ran; sleep 100")
    time.sleep(moment_s + 0.05)
    docker.silod.kill()
    caller.communicate()
    docker.silod.start()
    found = docker.try_("inspect", "--format", "{{.State.Status}}", "cut").stdout.strip()
    if found == "running":
        # one that counts as running has its program
        until(lambda: docker("logs", "cut") == "it ran")
        assert docker("exec", "cut", "cat", "/proc/1/comm") in ("sh", "sleep")
    docker.try_("rm", "-f", "cut")
    assert docker("run", "--rm", "busybox", "echo", "on") == "on"


def test_what_waited_goes_with_its_daemon(docker: Docker) -> None:
    pid = waiting(docker)
    docker.silod.kill()
    docker.silod.start()
    until(lambda: pid not in machines(docker), lambda: str(machines(docker)))
    # what is kept ready is remembered
    until(lambda: len(machines(docker)) == 1, lambda: str(machines(docker)), 60)


def test_a_machine_that_dies_while_it_waits_is_passed_over(docker: Docker) -> None:
    pid = waiting(docker)
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)], check=True)
    assert docker("run", "--rm", "busybox", "echo", "another") == "another"


def test_a_linux_container_from_a_template_of_its_image(docker: Docker) -> None:
    script = "hostname; env | grep ^HOSTNAME=; cat /etc/hostname"
    names = {docker("run", "--rm", *PARKED, "busybox", "sh", "-c", script) for _ in range(3)}
    assert len(names) == 3
    for name in names:
        first, variable, written = name.split()
        assert variable == f"HOSTNAME={first}" and written == first


def test_a_windows_program_that_was_parked(session: Docker) -> None:
    load_windows(session.silod)
    words = ("--rm", *PARKED, "windows", "cmd", "/c", "echo %COMPUTERNAME%& hostname")
    seen = [session("run", *words).split() for _ in range(3)]
    assert len({name for name, _ in seen}) == 3
    for variable, asked in seen:
        assert variable == asked.upper() and len(variable) == 12
    # with a folder, and with a name that has another length: as any container
    assert (
        session("run", *PARKED, "--rm", "-h", "short", "windows", "cmd", "/c", "echo %COMPUTERNAME%").strip() == "SHORT"
    )
    coded = session.try_("run", "--rm", *PARKED, "windows", "cmd", "/c", "exit 300")
    assert coded.returncode == 300 % 256
    assert session.try_("run", "--rm", *PARKED, "windows", "none.exe").returncode == 127


def test_the_label_has_two_values_and_is_for_machines(docker: Docker) -> None:
    failed = docker.try_("create", "--label", "com.silo.vm.parked=perhaps", "busybox")
    assert failed.returncode != 0 and "com.silo.vm.parked" in failed.stderr
    failed = docker.try_("create", "--isolation", "process", *PARKED, "busybox")
    assert failed.returncode != 0 and "--isolation hyperv" in failed.stderr
