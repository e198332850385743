"""The built utility VM: it boots to the agent over both kinds of root device, tells why where it does not, and builds to the
same bytes again.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.errors import Unavailable
from silo.isolation.vm.base.build import VmBase, build_vm_base
from silo.wiring import AGENT_FILES, UtilityVm
from tests.support.daemon import running_silod
from tests.support.probes import require_program, require_root
from tests.support.windows import ROOT, cache_root

pytestmark = pytest.mark.system

DATA_ROOT = Path(os.environ.get("SILO_TEST_BASE_ROOT", "/var/cache/silo-tests"))
"""Outlives the test run: the packages (130 MB) are fetched once."""

EXTRA_FILES = {"/silo/agent": Path(__file__).with_name("agent.py")}
MACHINE = "q35,graphics=off,smbus=off,sata=off,hpet=off,vmport=off,usb=off"
BOOT_LIMIT_S = 120


@pytest.fixture(scope="module")
def base() -> Iterator[VmBase]:
    require_root()
    require_program("mkfs.erofs", "erofs-utils")
    try:
        yield build_vm_base(DATA_ROOT, extra_files=EXTRA_FILES)
    except Unavailable as error:
        pytest.skip(f"needs internet: {error}")


def memory_root(base: VmBase) -> list[str]:
    size = base.root.stat().st_size
    backend = f"memory-backend-file,id=root,mem-path={base.root},size={size},share=on,readonly=on"
    return ["-m", "256,maxmem=4G", "-object", backend, "-device", "virtio-pmem-pci,memdev=root,id=root0"]


def disk_root(base: VmBase) -> list[str]:
    drive = f"driver=file,node-name=root,filename={base.root},read-only=on"
    return ["-m", "256", "-blockdev", drive, "-device", "virtio-blk-pci,drive=root"]


def boot(base: VmBase, root: list[str], parameters: str, folder: Path) -> str:
    """What the console said until the VM ended by itself."""
    qemu = require_program("qemu-system-x86_64", "qemu-system-x86")
    console = folder / "console"
    words = [
        *(qemu, "-M", MACHINE, "-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", f"file:{console}"),
        *("-kernel", str(base.kernel), "-initrd", str(base.initrd)),
        *("-append", f"console=ttyS0 panic=-1 quiet {parameters}"),
        *root,
    ]
    subprocess.run(words, check=True, timeout=BOOT_LIMIT_S)
    return console.read_text(errors="replace")


def report_of(said: str) -> dict[str, object]:
    assert "python ok" in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("report: ")]
    found: dict[str, object] = json.loads(line.removeprefix("report: "))
    return found


def check_report(report: dict[str, object], base: VmBase) -> None:
    assert report["kernel"] == base.manifest.kernel_release
    assert report["pid"] == 1
    assert str(report["crun"]).startswith("crun version 1.")
    assert "LOWER_UP" in str(report["loopback"])
    assert str(report["container"]).split() == ["33554432", "pid", "1"]
    assert report["root"][2] == "overlay"  # type: ignore[index]
    assert {"cpu", "io", "memory", "pids"} <= set(report["controllers"])  # type: ignore[call-overload]


def test_boots_from_memory_that_it_shares_with_the_host(base: VmBase, tmp_path: Path) -> None:
    # Without "noforce" the kernel takes 64 MiB for bounce buffers as soon as memory could lie above 4 GiB (maxmem).
    parameters = "swiotlb=noforce silo.root=/dev/pmem0 silo.dax=1"
    report = report_of(boot(base, memory_root(base), parameters, tmp_path))
    check_report(report, base)
    device, _, kind, options = report["base"][:4]  # type: ignore[index]
    assert (device, kind) == ("/dev/pmem0", "erofs")
    assert {"ro", "dax=always"} <= set(options.split(","))
    # Python and crun ran, and the guest has no copy of them.
    assert int(str(report["cached_kib"])) < 10_000
    assert int(str(report["total_kib"])) > 200_000


def test_boots_from_a_disk(base: VmBase, tmp_path: Path) -> None:
    report = report_of(boot(base, disk_root(base), "silo.root=/dev/vda", tmp_path))
    check_report(report, base)
    assert report["base"][:3] == ["/dev/vda", "/run/silo/base", "erofs"]  # type: ignore[index]
    assert "dax" not in report["base"][3]  # type: ignore[index]


def test_a_vm_without_its_root_ends_and_says_why(base: VmBase, tmp_path: Path) -> None:
    said = boot(base, disk_root(base), "silo.root=/dev/vdz", tmp_path)
    assert "silo: there is no root device /dev/vdz, only: /dev/vda" in said
    assert "python ok" not in said


def test_a_second_build_is_a_look_up(base: VmBase) -> None:
    steps: list[str] = []
    again = build_vm_base(DATA_ROOT, extra_files=EXTRA_FILES, progress=lambda step, _: steps.append(step))
    assert again.reused
    assert again.key == base.key
    assert steps == []
    assert (DATA_ROOT / "vm/current").resolve() == base.directory.resolve()
    assert not list((DATA_ROOT / "vm").glob(".building-*"))


def test_the_same_inputs_give_the_same_bytes(base: VmBase, tmp_path: Path) -> None:
    try:
        newest = build_vm_base(DATA_ROOT, extra_files=EXTRA_FILES, refresh=True)
        (tmp_path / "cache").symlink_to(DATA_ROOT / "cache")
        twin = build_vm_base(tmp_path, extra_files=EXTRA_FILES)
    except Unavailable as error:
        pytest.skip(f"needs internet: {error}")
    assert not twin.reused
    assert twin.key == newest.key
    for path in sorted(newest.directory.iterdir()):
        assert (twin.directory / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_command_finds_what_is_built_and_lists_it(base: VmBase) -> None:
    # The daemon under test has no network to the outside: it must find what was built before.
    try:
        built = UtilityVm(cache_root(), AGENT_FILES).build(lambda step, fraction: None, refresh=False)
    except Unavailable as error:
        pytest.skip(f"needs internet: {error}")
    with running_silod(cache_root=str(cache_root())) as daemon:
        silo = [str(ROOT / "bin" / "silo"), "-H", f"unix://{daemon.socket}", "base"]
        said = subprocess.run([*silo, "build", "vm"], check=True, capture_output=True, text=True)
        assert said.stdout.splitlines()[-1] == built.id
        listed = subprocess.run([*silo, "ls"], check=True, capture_output=True, text=True).stdout
    assert f"vm default {built.id[:12]}" in " ".join(listed.split()) and built.kernel_release in listed
