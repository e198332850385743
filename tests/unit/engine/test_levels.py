"""What --isolation hyperv refuses, and what it takes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from silo.engine.levels import check_level, check_sources
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import ContainerConfig, Device, Namespaces, Resources, Ulimit
from silo.model.mount import MountKind, MountRequest, PlannedMount
from silo.model.platform import Isolation
from tests.unit.engine.fakes import Bench
from tests.unit.engine.test_lifecycle import create, scenario

SHARED = MountRequest(kind=MountKind.BIND, source="/srv", target="/srv", propagation="rshared")
PIPE = MountRequest(kind=MountKind.NAMED_PIPE, source="\\\\.\\pipe\\x", target="\\\\.\\pipe\\y")
OTHER = "container:" + "a" * 64

REFUSED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--network host", {"network_mode": "host"}),
    (f"--network {OTHER}", {"network_mode": OTHER}),
    ("--pid host", {"namespaces": Namespaces(pid="host")}),
    (f"--pid {OTHER}", {"namespaces": Namespaces(pid=OTHER)}),
    ("--ipc host", {"namespaces": Namespaces(ipc="host")}),
    ("--ipc shareable", {"namespaces": Namespaces(ipc="shareable")}),
    ("--uts host", {"namespaces": Namespaces(uts="host")}),
    ("--userns host", {"namespaces": Namespaces(user="host")}),
    ("--cgroupns host", {"namespaces": Namespaces(cgroup="host")}),
    ("--device /dev/kvm", {"resources": Resources(devices=(Device(host_path="/dev/kvm", container_path="/dev/kvm"),))}),
    ("--device-cgroup-rule 'c 1:3 rwm'", {"resources": Resources(device_cgroup_rules=("c 1:3 rwm",))}),
    ("the propagation rshared of /srv", {"mounts": (SHARED,)}),
    ("the named pipe \\\\.\\pipe\\y", {"mounts": (PIPE,)}),
    ("--memory-swap -1", {"resources": Resources(memory_swap_bytes=-1)}),
    ("--memory-swap 200", {"resources": Resources(memory_bytes=100, memory_swap_bytes=200)}),
    ("--memory-swappiness 0", {"resources": Resources(memory_swappiness=0)}),
    ("--blkio-weight 10", {"resources": Resources(blkio_weight=10)}),
    ("--oom-kill-disable", {"resources": Resources(oom_kill_disable=True)}),
)
TAKEN: tuple[dict[str, Any], ...] = (
    {},
    {"network_mode": "none", "namespaces": Namespaces(ipc="none")},
    {"mounts": (MountRequest(kind=MountKind.BIND, source="/srv", target="/srv", propagation="rprivate"),)},
    {"resources": Resources(memory_bytes=100, memory_swap_bytes=100, memory_reservation_bytes=50)},
    {"resources": Resources(nano_cpus=10**9, cpu_shares=2, cpuset_cpus="0", cpuset_mems="0")},
    {"resources": Resources(pids_limit=5, ulimits=(Ulimit(name="nofile", soft=1, hard=2),), oom_score_adj=5)},
)


@pytest.mark.parametrize(("option", "config"), REFUSED, ids=[option for option, _ in REFUSED])
def test_what_a_virtual_machine_cannot_have_is_refused_by_name(option: str, config: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as caught:
        check_level(ContainerConfig(image="i", isolation=Isolation.HYPERV, **config))
    text = str(caught.value)
    assert text.startswith(f"{option} is not supported with --isolation hyperv: ") and "--isolation process" in text
    check_level(ContainerConfig(image="i", isolation=Isolation.PROCESS, **config))


@pytest.mark.parametrize("config", TAKEN)
def test_what_it_can_have(config: dict[str, Any]) -> None:
    check_level(ContainerConfig(image="i", isolation=Isolation.HYPERV, **config))


def test_create_and_update_ask() -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Unsupported, match="--pid host"):
            await create(bench, "n", isolation=Isolation.HYPERV, namespaces=Namespaces(pid="host"))
        assert not bench.documents.rows
        container = await create(bench, "vm", isolation=Isolation.HYPERV)
        assert bench.engine.containers.resolve("vm").isolation is Isolation.HYPERV
        with pytest.raises(Unsupported, match="--memory-swap"):
            await bench.engine.containers.update(container, Resources(memory_swap_bytes=1 << 30))
        with pytest.raises(Unsupported, match="namespaces of container vm cannot be joined"):
            await create(bench, "guest", network_mode="container:vm")
        await bench.engine.containers.start(container)
        assert container in bench.vm_runtime.running and container not in bench.runtime.running

    scenario(body)


def test_only_the_default_utility_vm_may_be_missing_at_create() -> None:
    async def body(bench: Bench) -> None:
        bench.vm_images.names.clear()
        await create(bench, "plain", isolation=Isolation.HYPERV)
        with pytest.raises(InvalidRequest, match="no utility VM named rt: none is built"):
            await create(bench, "named", isolation=Isolation.HYPERV, labels={"com.silo.vm": "rt"})

    scenario(body)


def test_a_parked_container_is_a_machines_and_says_so_in_its_plan() -> None:
    label = "com.silo.vm.parked"

    async def body(bench: Bench) -> None:
        for text, wanted in (("true", True), ("False", False)):
            container = await create(bench, text, isolation=Isolation.HYPERV, labels={label: text})
            made = bench.documents.get(container)
            assert made is not None and made.config.parked is wanted
        with pytest.raises(InvalidRequest, match="true or false"):
            await create(bench, "perhaps", isolation=Isolation.HYPERV, labels={label: "perhaps"})
        with pytest.raises(InvalidRequest, match="--isolation hyperv"):
            await create(bench, "process", labels={label: "true"})

    scenario(body)


def test_a_socket_is_no_bind_for_a_virtual_machine(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    bind = PlannedMount(target="/s", source=path, kind=MountKind.BIND)
    with pytest.raises(Unsupported, match=r"s\.sock cannot be mounted with --isolation hyperv"):
        check_sources(Isolation.HYPERV, (bind,))
    check_sources(Isolation.PROCESS, (bind,))
    folder = PlannedMount(target="/d", source=tmp_path, kind=MountKind.BIND)
    check_sources(Isolation.HYPERV, (folder, PlannedMount(target="/t", kind=MountKind.TMPFS)))
