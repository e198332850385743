"""The contract's Linux subject at the level hyperv, for tests that spoil what its machines are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from silo.isolation.vm.runtime import VmRuntime
from silo.model.vm_image import VmImage
from tests.contract.conftest import find_vm_image, linux_layer, places, pytest_pyfunc_call  # noqa: F401 - fixtures and hook
from tests.contract.subjects import LinuxSubject
from tests.support.probes import require_program


@pytest.fixture
def spoiled_image(tmp_path: Path) -> VmImage:
    """A copy of the utility VM's image, to be changed."""
    require_program("qemu-system-x86_64", "qemu-system-x86")
    image = find_vm_image()
    shutil.copytree(image.directory, tmp_path / "image")
    return msgspec.structs.replace(image, directory=tmp_path / "image")


@pytest.fixture
def subject(places: Path, linux_layer: Path, spoiled_image: VmImage) -> LinuxSubject:  # noqa: F811
    async def find(_: str) -> VmImage:
        return spoiled_image

    def make() -> VmRuntime:
        return VmRuntime(run_root=places / "run", data_root=places / "data", find_image=find)

    return LinuxSubject(make, places / "data", (linux_layer,))
