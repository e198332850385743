"""The OCI spec against golden files. To accept a change on purpose: SILO_WRITE_GOLDEN=1 pytest tests/unit/isolation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from silo.isolation.spec import DeviceNode, SpecInputs, StagedMount, build_process, build_spec
from silo.model.accounts import Identity
from silo.model.container import Namespaces, Resources, Ulimit
from silo.model.mount import MountKind
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ProcessPlan, Rootfs

GOLDEN = Path(__file__).parents[2] / "golden"

OWN = {"user": "/proc/1/fd/7", "network": "/proc/1/fd/8", "ipc": "", "pid": "", "uts": "", "cgroup": ""}
HOST_USER = {kind: "" for kind in OWN if kind != "user"}


def plan(**fields: Any) -> ContainerPlan:
    base = ContainerPlan(
        id="c" * 64,
        personality=PersonalityName.LINUX,
        image_id="sha256:" + "1" * 64,
        rootfs=Rootfs(layers=(Path("/layers/a"),), scratch=Path("/scratch")),
        process=ProcessPlan(args=("/bin/sh", "-c", "true"), env=("PATH=/bin",), capabilities=("CAP_CHOWN", "CAP_KILL")),
        directory=Path("/data/c"),
        hostname="box",
        masked_paths=("/proc/kcore",),
        readonly_paths=("/proc/sys",),
    )
    return msgspec.structs.replace(base, **fields)


def inputs(**fields: Any) -> SpecInputs:
    words: dict[str, Any] = {"root": "/run/c/merged", "identity": Identity(0, 0, (), "/root"), "namespaces": OWN}
    return SpecInputs(**{**words, **fields})


CASES: dict[str, tuple[ContainerPlan, SpecInputs]] = {
    "plain": (plan(), inputs(seccomp_filter="QkFTRTY0")),
    "terminal_user": (
        plan(
            process=ProcessPlan(args=("top",), user="app", tty=True, console_size=(40, 120), capabilities=("CAP_KILL",))
        ),
        inputs(identity=Identity(1000, 1000, (1001,), "/home/app")),
    ),
    "mounts": (
        plan(),
        inputs(
            mounts=(
                StagedMount("/data/deep/er", "/run/c/mounts/0", MountKind.VOLUME, ("rprivate",)),
                StagedMount("/data", "/run/c/mounts/1", MountKind.BIND, ("ro", "rslave")),
                StagedMount("/dev/shm", "", MountKind.TMPFS, ("size=1m",)),
            )
        ),
    ),
    "limits": (
        plan(
            resources=Resources(shm_size_bytes=1 << 20, ulimits=(Ulimit(name="nofile", soft=10, hard=-1),)),
            sysctls={"net.core.somaxconn": "9"},
            domainname="example.org",
            init=True,
        ),
        inputs(init_source="/usr/bin/tini-static", oom_score_adj=500),
    ),
    "host_modes": (
        plan(network="host", namespaces=Namespaces(ipc="host", pid="host", uts="host", cgroup="host")),
        inputs(namespaces={"user": "/proc/1/fd/7"}, seccomp_section={"defaultAction": "SCMP_ACT_ERRNO"}),
    ),
    "privileged": (
        plan(privileged=True, masked_paths=(), readonly_paths=()),
        inputs(
            namespaces=HOST_USER,
            devices=(DeviceNode("/dev/kvm", "c", 10, 232, 0o660, 0, 105),),
            device_rules=("a",),
        ),
    ),
    "unified": (plan(), inputs(cgroup_path="/silo/" + "c" * 64)),
    "ipc_none": (plan(namespaces=Namespaces(ipc="none")), inputs()),
}


@pytest.mark.parametrize("name", CASES)
def test_spec_is_as_accepted(name: str) -> None:
    made = json.dumps(build_spec(*CASES[name]), indent=1, sort_keys=True) + "\n"
    file = GOLDEN / f"spec_{name}.json"
    if os.environ.get("SILO_WRITE_GOLDEN"):
        file.write_text(made)
    assert made == file.read_text()


def test_parents_are_mounted_before_their_children() -> None:
    targets = [mount["destination"] for mount in build_spec(*CASES["mounts"])["mounts"]]
    assert targets.index("/data") < targets.index("/data/deep/er")


def test_a_users_mount_takes_the_place_of_a_default_one() -> None:
    shm = [mount for mount in build_spec(*CASES["mounts"])["mounts"] if mount["destination"] == "/dev/shm"]
    assert [mount["options"] for mount in shm] == [["nosuid", "nodev", "size=1m"]]
    whole = inputs(mounts=(StagedMount("/dev/", "/dev", MountKind.BIND, ()),))
    targets = [mount["destination"] for mount in build_spec(plan(), whole)["mounts"]]
    assert not any(target.startswith("/dev/") and target != "/dev/" for target in targets)


def test_only_root_has_capabilities_in_effect() -> None:
    process = ProcessPlan(args=("x",), capabilities=("CAP_KILL",))
    assert build_process(process, Identity(0, 0))["capabilities"]["effective"] == ["CAP_KILL"]
    confined = build_process(process, Identity(5, 5))["capabilities"]
    assert (confined["effective"], confined["permitted"], confined["bounding"]) == ([], [], ["CAP_KILL"])


def test_home_and_term_are_defaults_only() -> None:
    made = build_process(ProcessPlan(args=("x",), env=("HOME=/mine",), tty=True), Identity(1, 1, (), "/theirs"))
    assert made["env"] == ["HOME=/mine", "TERM=xterm"]
