"""A Windows container's time zone is its own: set by TZ or tzutil, kept with it, and never the host's."""

from __future__ import annotations

import subprocess
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.probes import require
from tests.support.windows import windows_docker

pytestmark = pytest.mark.system

PLACES = "C:\\tests\\places.exe"


def zone(said: str) -> tuple[int, str]:
    """(minutes west of Greenwich, the zone's name) as places.exe found them."""
    (line,) = (line for line in said.splitlines() if line.startswith("windows zone "))
    _, _, bias, _, name = line.split(" ", 4)
    return int(bias), name.strip()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("PST8PDT,M3.2.0,M11.1.0", (480, "Pacific Standard Time")),
        ("<+0530>-5:30", (-330, "India Standard Time")),
        ("America/New_York", (300, "Eastern Standard Time")),
        ("Nowhere/Land", (0, "Greenwich Standard Time")),
    ],
)
def test_the_variable(docker: Docker, folder: Path, given: str, found: tuple[int, str]) -> None:
    require("a table of time zones", "America/New_York" in zoneinfo.available_timezones(), "no zoneinfo on this host")
    run = ("run", "--rm", "-e", f"TZ={given}", "-v", f"{folder}:C:\\tests:ro")
    assert zone(docker(*run, "windows", PLACES)) == found


def test_tzutil(docker: Docker, folder: Path, level: str) -> None:
    run = ("run", "-di", "--name", "zoned", "--isolation", level, "-v", f"{folder}:C:\\tests:ro")
    docker(*run, "windows", "cmd")
    docker("exec", "zoned", "tzutil", "/s", "Pacific Standard Time")
    assert docker("exec", "zoned", "tzutil", "/g") == "Pacific Standard Time"
    assert zone(docker("exec", "zoned", PLACES)) == (480, "Pacific Standard Time")
    key = "HKLM\\System\\CurrentControlSet\\Control\\TimeZoneInformation"
    assert "Pacific Standard Time" in docker("exec", "zoned", "reg", "query", key, "/v", "TimeZoneKeyName")
    docker("restart", "-t", "2", "zoned")
    assert zone(docker("exec", "zoned", PLACES)) == (480, "Pacific Standard Time")
    docker("commit", "zoned", "zoned:1")
    docker("rm", "-f", "zoned")
    again = ("run", "--rm", "--isolation", level, "-v", f"{folder}:C:\\tests:ro")
    assert zone(docker(*again, "zoned:1", PLACES)) == (480, "Pacific Standard Time")
    assert zone(docker(*again, "windows", PLACES))[0] == 0
    docker("rmi", "zoned:1")


@pytest.mark.parametrize(
    ("name", "bias"),
    [("Tokyo Standard Time", -540), ("Newfoundland Standard Time", 210), ("Pacific Standard Time_dstoff", 480)],
)
def test_other_zones(docker: Docker, folder: Path, name: str, bias: int) -> None:
    docker("run", "-di", "--name", "zones", "-v", f"{folder}:C:\\tests:ro", "windows", "cmd")
    docker("exec", "zones", "tzutil", "/s", name)
    found = zone(docker("exec", "zones", PLACES))
    docker("rm", "-f", "zones")
    assert found == (bias, name) if "_" not in name else found[0] == bias


def test_what_tzutil_refuses(docker: Docker) -> None:
    unknown = docker.try_("run", "--rm", "windows", "tzutil", "/s", "Atlantis Standard Time")
    assert unknown.returncode == 1 and "not known" in unknown.stdout + unknown.stderr
    denied = docker.try_("run", "--rm", "-u", "ContainerUser", "windows", "tzutil", "/s", "Tokyo Standard Time")
    assert denied.returncode == 1 and "Access is denied" in denied.stdout + denied.stderr
    assert "(UTC-08:00)" in docker("run", "--rm", "windows", "tzutil", "/l")


@pytest.fixture(scope="module")
def tokyo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon on a host whose zone is Tokyo's, by file and by variable."""
    file = tmp_path_factory.mktemp("zone") / "localtime"
    source = Path("/usr/share/zoneinfo/Asia/Tokyo")
    require("a table of time zones", source.exists(), f"no {source}")
    file.write_bytes(source.read_bytes())
    script = 'mount --bind "$1" /etc/localtime && shift && TZ=Asia/Tokyo exec "$@"'
    with windows_docker(prefix=("unshare", "--mount", "sh", "-c", script, "sh", str(file))) as client:
        yield client


def test_the_hosts_zone_is_not_the_containers(tokyo: Docker, folder: Path, level: str) -> None:
    daemon = next(path for path in Path("/proc").glob("[0-9]*/cmdline") if _serves(path, tokyo))
    command = ["nsenter", f"--mount={daemon.parent}/ns/mnt", "date", "+%z"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "+0900\n"
    run = ("run", "--rm", "--isolation", level, "-v", f"{folder}:C:\\tests:ro")
    assert zone(tokyo(*run, "windows", PLACES))[0] == 0


def _serves(command: Path, docker: Docker) -> bool:
    try:
        words = command.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"silo.daemon" in words and str(docker.silod.data_root).encode() in words
