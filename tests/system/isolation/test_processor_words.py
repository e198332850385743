"""`--cpu-count`, `--cpu-shares`, `--cpu-percent` and their kin on Windows containers: what the kernel enforces, and inspect says.

Docker's client takes the words that are Windows' own for a daemon on Windows only; ours, compose and the API send them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.probes import require
from tests.support.windows import ROOT

pytestmark = pytest.mark.system

LIMITS = "C:\\tests\\limits.exe"
PRESENT = os.cpu_count() or 1


def silo(docker: Docker, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "bin" / "silo"), "-H", f"unix://{docker.silod.socket}", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def burned(docker: Docker, folder: Path, *flags: str) -> int:
    """Hundredths of a processor that two computing threads got."""
    mount = ("-v", f"{folder}:C:\\tests:ro")
    done = silo(docker, "run", "--rm", *mount, *flags, "windows", LIMITS, "burn", "3")
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[1])


def cpu_file(docker: Docker, name: str, *leaves: str) -> str:
    """The first of these files that there is in the group of a running container's processes."""
    pid = docker.inspect(name)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for leaf in leaves if not controllers or "cpu" in controllers.split(",") else ():
            file = Path("/sys/fs/cgroup", "cpu" if controllers else "", path[1:], leaf)
            if file.exists():
                return file.read_text().strip()
    raise AssertionError(f"none of {leaves}")


def quota(docker: Docker, name: str) -> str:
    return cpu_file(docker, name, "cpu.cfs_quota_us", "cpu.max").split()[0]


def weight(docker: Docker, name: str) -> str:
    return cpu_file(docker, name, "cpu.shares", "cpu.weight")


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        (("--cpu-count", "1"), 100),
        (("--cpu-percent", "25"), 25 * PRESENT),
        (("--cpus", "0.5"), 50),
        (("--cpu-count", "1", "--cpu-percent", "10"), 100),
    ],
)
def test_no_more_than_that(docker: Docker, folder: Path, flags: tuple[str, ...], most: int) -> None:
    require("two processors", PRESENT > 1, f"there is {PRESENT}")
    got = burned(docker, folder, "--isolation", "process", *flags)
    assert 0 < got <= most * 1.15


def test_without_a_limit_there_is_none(docker: Docker) -> None:
    docker("run", "-di", "--name", "free", "windows", "cmd")
    found = (quota(docker, "free"), weight(docker, "free"))
    docker("rm", "-f", "free")
    assert found in (("-1", "1024"), ("max", "100"))


def test_a_machine_has_as_many_processors(docker: Docker, folder: Path, level: str) -> None:
    require("two processors", PRESENT > 1, f"there is {PRESENT}")
    mount = ("-v", f"{folder}:C:\\tests:ro", "--isolation", level)
    done = silo(docker, "run", "--rm", *mount, "--cpu-count", "1", "windows", LIMITS, "processors")
    assert done.stdout.split() == ["processors", "1" if level == "hyperv" else str(PRESENT)]
    if level == "hyperv":
        done = silo(docker, "run", "--rm", *mount, "--cpu-count", "2", "windows", LIMITS, "processors")
        assert done.stdout.split() == ["processors", "2"]


def test_inspect_and_update(docker: Docker) -> None:
    made = silo(docker, "run", "-di", "--name", "counted", "--cpu-count", "1", "--cpu-shares", "2500", "windows", "cmd")
    assert made.returncode == 0 and "CPU shares discarded" in made.stderr
    host = docker.inspect("counted")["HostConfig"]
    assert (host["CpuCount"], host["CpuShares"], host["CpuPercent"], host["NanoCpus"]) == (1, 2500, 0, 0)
    assert quota(docker, "counted") == "100000"
    docker("rm", "-f", "counted")
    docker("run", "-di", "--name", "weighed", "--cpu-shares", "10000", "windows", "cmd")
    assert weight(docker, "weighed") in ("2048", "79")
    docker("update", "--cpu-shares", "2500", "weighed")
    assert docker.inspect("weighed")["HostConfig"]["CpuShares"] == 2500
    assert weight(docker, "weighed") in ("512", "20")
    refused = docker.try_("update", "--cpu-shares", "20000", "weighed")
    assert refused.returncode == 1 and "from 1 to 10000" in refused.stderr
    docker("rm", "-f", "weighed")


@pytest.mark.parametrize(
    ("image", "flags", "words"),
    [
        ("windows", ("--cpu-percent", "101"), "Range of CPU percent is from 1 to 100"),
        ("windows", ("--cpus", "1", "--cpu-percent", "5"), "Nano CPUs and CPU Percent cannot both be set"),
        ("windows", ("--cpu-count", str(PRESENT + 1)), f"only {PRESENT} CPUs"),
        ("windows", ("--io-maxiops", "5"), "--io-maxiops"),
        ("windows", ("--io-maxbandwidth", "5m"), "--io-maxbandwidth"),
        ("busybox", ("--cpu-count", "1"), "--cpu-count"),
    ],
)
def test_what_is_refused(docker: Docker, image: str, flags: tuple[str, ...], words: str) -> None:
    done = silo(docker, "create", *flags, image, "cmd")
    assert done.returncode != 0 and words in done.stderr


def test_a_percentage_of_a_linux_container_is_discarded(docker: Docker) -> None:
    done = silo(docker, "create", "--name", "percent", "--cpu-percent", "5", "busybox", "true")
    docker("rm", "percent")
    assert done.returncode == 0 and "linux does not support CPU percent. Percent discarded." in done.stderr
