"""`--storage-opt size=`: a container's own layer gets full, its volumes do not, and nothing of it is left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker

pytestmark = pytest.mark.system

SIZE = 256 << 20
LIMITED = ("--storage-opt", "size=256m")
DISK_FULL = 112
LIMITS = "C:\\tests\\limits.exe"


@pytest.fixture
def run(docker: Docker, folder: Path, level: str) -> Iterator[tuple[str, ...]]:
    """Words of a run at this level; every container that is called `small` is gone afterwards."""
    yield ("run", "--isolation", level, "-v", f"{folder}:C:\\tests:ro")
    docker("rm", "-f", "-v", "small")


def attached_images(docker: Docker) -> list[str]:
    """Files of this daemon that are loop devices now."""
    done = subprocess.run(["losetup", "--noheadings", "-O", "BACK-FILE", "-a"], capture_output=True, text=True)
    return [line for line in done.stdout.split() if str(docker.silod.data_root) in line]


def test_a_windows_drive_gets_full(docker: Docker, run: tuple[str, ...]) -> None:
    said = docker(*run, "--name", "small", *LIMITED, "windows", LIMITS, "disk").split()
    assert said[0] == "total" and 0.95 * SIZE < int(said[1]) <= SIZE and int(said[3]) < int(said[1])
    docker("rm", "small")
    said = docker(*run, "--name", "small", *LIMITED, "windows", LIMITS, "fill", "C:\\big.bin").split()
    assert said[:3] == ["error", str(DISK_FULL), "after"] and 150 < int(said[3]) < 256
    changed = docker("diff", "small").splitlines()
    assert "A C:\\big.bin" in changed
    free = docker.inspect("small")["HostConfig"]["StorageOpt"]
    assert free == {"size": "256m"}


def test_the_files_of_a_full_one_are_reached(docker: Docker, run: tuple[str, ...], tmp_path: Path) -> None:
    script = "echo kept> C:\\kept.txt & C:\\tests\\limits.exe fill C:\\big.bin & del C:\\big.bin"
    docker(*run, "--name", "small", *LIMITED, "windows", "cmd", "/c", script)
    docker("cp", "small:C:\\kept.txt", str(tmp_path))
    assert (tmp_path / "kept.txt").read_text().strip() == "kept"
    (tmp_path / "new.txt").write_text("new\n")
    docker("cp", str(tmp_path / "new.txt"), "small:C:\\new.txt")
    docker("commit", "small", "smaller")
    assert docker("run", "--rm", "smaller", "cmd", "/c", "type C:\\kept.txt & type C:\\new.txt").split() == [
        "kept",
        "new",
    ]
    docker("rmi", "smaller")
    docker("export", "-o", str(tmp_path / "all.tar"), "small")
    listed = subprocess.run(["tar", "-tf", tmp_path / "all.tar"], capture_output=True, text=True, check=True).stdout
    assert "kept.txt" in listed and "new.txt" in listed
    docker("start", "-a", "small")


def test_a_linux_root_gets_full_and_its_volume_does_not(docker: Docker, level: str) -> None:
    script = "dd if=/dev/zero of=/v/big bs=1M count=300 2>&1; dd if=/dev/zero of=/big bs=1M count=300 2>&1; df -k /"
    run = ("run", "--rm", "--isolation", level, "-v", "silo-sizes:/v", *LIMITED)
    said = docker(*run, "busybox", "sh", "-c", script)
    docker("volume", "rm", "silo-sizes")
    assert said.count("No space left on device") == 1
    in_volume, in_root = said.split("No space left on device")
    assert "300+0 records out" in in_volume
    kilobytes = int(in_root.splitlines()[-1].split()[1])
    assert 0.95 * SIZE < kilobytes * 1024 <= SIZE


def test_nothing_is_left(docker: Docker, level: str) -> None:
    docker("run", "--rm", "--isolation", level, *LIMITED, "busybox", "true")
    docker("create", "--name", "unstarted", "--isolation", level, *LIMITED, "busybox", "true")
    docker("rm", "unstarted")
    assert attached_images(docker) == []


def test_after_a_kill_of_the_daemon(docker: Docker) -> None:
    """The one that ran goes on with its disk, the one that stood still is found again; both are let go."""
    docker("run", "-d", "--name", "runs", *LIMITED, "busybox", "sh", "-c", "echo one > /one; sleep 1000")
    docker("run", "--name", "stood", *LIMITED, "busybox", "sh", "-c", "echo two > /two")
    docker.silod.kill()
    docker.silod.start()
    docker("exec", "runs", "sh", "-c", "echo more >> /one; sync")
    assert docker("exec", "runs", "cat", "/one").split() == ["one", "more"]
    assert {"A /one"} <= set(docker("diff", "runs").splitlines())
    assert {"A /two"} <= set(docker("diff", "stood").splitlines())
    docker("rm", "-f", "runs", "stood")
    assert attached_images(docker) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("size=1k", "too small"),
        ("size=lots", "not a size"),
        ("inodes=5", "unknown option in --storage-opt: inodes"),
    ],
)
@pytest.mark.parametrize("image", ["windows", "busybox"])
def test_what_cannot_be(docker: Docker, image: str, option: str, words: str) -> None:
    done = docker.try_("create", "--storage-opt", option, image, "cmd")
    assert done.returncode == 1 and words in done.stderr


def test_more_than_a_machine_has(docker: Docker, level: str) -> None:
    done = docker.try_("run", "--rm", "--isolation", level, "--storage-opt", "size=30G", "busybox", "true")
    if level == "process":
        assert done.returncode == 0
    else:
        assert done.returncode == 125 and "vm_scratch_bytes" in done.stderr
