from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from silo.isolation.seccomp import SeccompInputs
from silo.isolation.vm.guest_spec import build_guest_spec, folders_of, read_special_files, special_files
from silo.model.accounts import Identity
from silo.model.container import Resources
from silo.model.mount import MountKind, PlannedMount
from tests.unit.isolation.test_spec import plan

SECCOMP: SeccompInputs = {"seccomp_filter": "Rg==", "seccomp_section": None}


def spec(**fields: Any) -> dict[str, Any]:
    return build_guest_spec(plan(**fields), Identity(0, 0, (), "/root"), SECCOMP)


def mount_at(found: dict[str, Any], target: str) -> dict[str, Any]:
    return next(mount for mount in found["mounts"] if mount["destination"] == target)


def mounts(folder: Path) -> tuple[PlannedMount, ...]:
    return (
        PlannedMount(target="/etc/hosts", source=folder / "hosts", kind=MountKind.BIND),
        PlannedMount(target="/a", source=Path("/srv/a"), kind=MountKind.BIND, read_only=True, options=("rprivate",)),
        PlannedMount(target="/t", kind=MountKind.TMPFS, options=("size=1m",)),
        PlannedMount(target="/b", source=Path("/volumes/b"), kind=MountKind.VOLUME),
    )


def test_the_machine_is_the_boundary() -> None:
    found = spec()
    kinds = {entry["type"] for entry in found["linux"]["namespaces"]}
    assert "user" not in kinds and "network" not in kinds and {"mount", "pid", "ipc", "uts"} <= kinds
    assert found["root"]["path"] == "/run/root" and found["linux"]["cgroupsPath"] == "/container"


def test_limits_are_the_guests_own_kernels() -> None:
    found = spec(resources=Resources(memory_bytes=1 << 28, pids_limit=5, nano_cpus=10**9))
    unified = found["linux"]["resources"]["unified"]
    assert unified["memory.max"] == str(1 << 28) and unified["pids.max"] == "5"
    assert "cpu.max" not in unified, "processors are limited from outside"


def test_folders_are_served_and_special_files_copied(tmp_path: Path) -> None:
    planned = plan(directory=tmp_path, mounts=mounts(tmp_path))
    assert [mount.target for mount in folders_of(planned)] == ["/a", "/b"]
    assert list(special_files(planned)) == ["hosts"]
    (tmp_path / "hosts").write_text("x")
    assert read_special_files(planned) == {"/run/files/hosts": b"x"}
    found = spec(directory=tmp_path, mounts=mounts(tmp_path))
    assert mount_at(found, "/etc/hosts")["source"] == "/run/files/hosts"
    assert mount_at(found, "/a")["source"] == "/run/folders/0" and "ro" in mount_at(found, "/a")["options"]
    assert mount_at(found, "/b")["source"] == "/run/folders/1"
    assert mount_at(found, "/t")["type"] == "tmpfs"


@pytest.mark.parametrize("privileged", [True, False])
def test_devices(privileged: bool) -> None:
    kind = mount_at(spec(privileged=privileged), "/dev")["type"]
    assert kind == ("devtmpfs" if privileged else "tmpfs")


def test_kernel_parameters_are_the_guests() -> None:
    assert spec(sysctls={"net.core.somaxconn": "9"})["linux"]["sysctl"] == {}
