"""Limits that the kernel would refuse are refused by name."""

from __future__ import annotations

import os
from typing import Any

import pytest

from silo.engine.limits import check_limits, check_sysctls
from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig, Device, Namespaces, Resources, Ulimit

PRESENT = os.cpu_count() or 1


@pytest.mark.parametrize(
    "fields",
    [
        {"ulimits": (Ulimit(name="bogus", soft=1, hard=1),)},
        {"ulimits": (Ulimit(name="nofile", soft=9, hard=1),)},
        {"ulimits": (Ulimit(name="nofile", soft=-1, hard=1),)},
        {"devices": (Device(host_path="/dev/null", container_path="/dev/null", permissions="zzz"),)},
        {"device_cgroup_rules": ("a",)},
        {"device_cgroup_rules": ("c 1:3 rwx",)},
        {"cpuset_cpus": str(PRESENT)},
        {"cpuset_cpus": "a-b"},
        {"nano_cpus": (PRESENT + 1) * 10**9},
        {"cpu_shares": -5},
        {"cpu_period_us": 1},
        {"cpu_quota_us": 5},
        {"oom_score_adj": 1001},
    ],
)
def test_what_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        check_limits(Resources(**fields))


def test_what_is_taken() -> None:
    check_limits(
        Resources(
            ulimits=(Ulimit(name="nofile", soft=1, hard=-1), Ulimit(name="core", soft=-1, hard=-1)),
            devices=(Device(host_path="/dev/null", container_path="/dev/null"),),
            device_cgroup_rules=("c *:* rwm", "b 8:0 r"),
            cpuset_cpus="0",
            nano_cpus=10**9,
            cpu_period_us=100_000,
            cpu_quota_us=-1,
            oom_score_adj=-1000,
        )
    )


@pytest.mark.parametrize(
    ("name", "config", "refused"),
    [
        ("net.ipv4.ip_forward", {}, False),
        ("net.ipv4.ip_forward", {"network_mode": "host"}, True),
        ("kernel.shmmax", {}, False),
        ("kernel.shmmax", {"namespaces": Namespaces(ipc="host")}, True),
        ("fs.mqueue.msg_max", {}, False),
        ("vm.swappiness", {}, True),
        ("kernel.core_pattern", {}, True),
    ],
)
def test_sysctls(name: str, config: dict[str, Any], refused: bool) -> None:
    wanted = ContainerConfig(image="i", sysctls={name: "1"}, **config)
    if not refused:
        return check_sysctls(wanted)
    with pytest.raises(InvalidRequest, match=name.replace(".", r"\.")):
        check_sysctls(wanted)
    return None
