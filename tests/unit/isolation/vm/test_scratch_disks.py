from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from silo.errors import NoSpace
from silo.isolation.vm.scratch_disks import ScratchDisks

SIZE = 64 << 20

pytestmark = pytest.mark.skipif(
    not (shutil.which("mke2fs") or Path("/sbin/mke2fs").exists()), reason="mke2fs is not installed"
)


@pytest.fixture
def disks(tmp_path: Path) -> ScratchDisks:
    made = ScratchDisks(tmp_path / "scratch", SIZE)
    made.open()
    return made


def test_a_disk_is_whole_and_sparse(disks: ScratchDisks, tmp_path: Path) -> None:
    disks.create(tmp_path / "one.img")
    status = (tmp_path / "one.img").stat()
    assert status.st_size == SIZE and status.st_blocks * 512 < SIZE // 2 and status.st_mode & 0o777 == 0o600
    checked = subprocess.run(["/sbin/e2fsck", "-fn", tmp_path / "one.img"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    listed = subprocess.run(["/sbin/debugfs", "-R", "ls -p /", tmp_path / "one.img"], capture_output=True, text=True)
    assert "/upper/" in listed.stdout and "/work/" in listed.stdout


def test_opening_again_keeps_what_is_there(disks: ScratchDisks) -> None:
    (pristine,) = disks.directory.iterdir()
    before = pristine.stat().st_ino
    disks.open()
    assert pristine.stat().st_ino == before


def test_a_copy_of_another_disk(disks: ScratchDisks, tmp_path: Path) -> None:
    disks.create(tmp_path / "one.img")
    with (tmp_path / "one.img").open("r+b") as file:
        file.seek(SIZE - 4096)
        file.write(b"the end")
    disks.copy(tmp_path / "one.img", tmp_path / "two.img")
    assert (tmp_path / "two.img").read_bytes() == (tmp_path / "one.img").read_bytes()


def test_a_full_disk_leaves_nothing(disks: ScratchDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(NoSpace):
        disks.create(tmp_path / "one.img")
    assert not list(tmp_path.glob("one*"))


def test_what_a_former_daemon_left(disks: ScratchDisks) -> None:
    disks.create(disks.directory / "pool-1.img")
    disks.clear()
    assert [path.name for path in disks.directory.iterdir()] == [f"pristine-{SIZE}.img"]
