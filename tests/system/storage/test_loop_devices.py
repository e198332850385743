"""A file as a block device: attached once, let go by the kernel when its last user goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from silo.errors import Unsupported
from silo.host import loop_devices, mounts
from silo.host.ext4_images import make_layer_image
from silo.host.loop_devices import loop_device
from tests.support.probes import require, require_program, require_root

pytestmark = pytest.mark.system

SIZE = 64 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    require_root()
    require("a loop device", Path("/dev/loop-control").exists(), "no /dev/loop-control")
    require_program("mke2fs", "e2fsprogs")
    make_layer_image(tmp_path / "layer.img", file_bytes=SIZE, size_bytes=SIZE)
    return tmp_path / "layer.img"


def attached(image: Path) -> list[str]:
    done = subprocess.run(["losetup", "-j", image], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_kernel_lets_it_go(image: Path, tmp_path: Path) -> None:
    with loop_device(image) as device:
        assert device.startswith("/dev/loop") and len(attached(image)) == 1
    assert attached(image) == []


def test_a_mount_keeps_it_and_a_second_one_shares_it(image: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
        with loop_device(image) as device:
            mounts.mount(device, place, "ext4")
    assert len(attached(image)) == 1
    (first / "upper" / "file").write_text("seen")
    assert (second / "upper" / "file").read_text() == "seen"
    mounts.unmount(first)
    assert len(attached(image)) == 1
    mounts.unmount(second)
    assert attached(image) == []


def test_a_host_that_has_none_is_told_what_was_probed(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_devices, "_CONTROL", tmp_path / "loop-control")
    with pytest.raises(Unsupported, match=r"loop-control: No such file.*modprobe loop"), loop_device(image):
        pass
