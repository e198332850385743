"""Numbers and words of limits, checked at create: what the kernel would refuse at start is refused here, by name."""

from __future__ import annotations

import os
import re

from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig, Resources

ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_DEVICE_RULE = re.compile(r"[abc] (\d+|\*):(\d+|\*) [rwm]{1,3}")
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
_MIN_PERIOD_US, _MAX_PERIOD_US = 1000, 1_000_000


def check_limits(resources: Resources) -> None:
    """Raises InvalidRequest naming the option and what it takes."""
    for limit in resources.ulimits:
        if limit.name not in ULIMITS:
            raise InvalidRequest(f"invalid ulimit type: {limit.name}", hint=f"one of {', '.join(sorted(ULIMITS))}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidRequest(f"--ulimit {limit.name}: the soft limit must not be above the hard limit")
    for device in resources.devices:
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise InvalidRequest(f"--device {device.host_path}: {device.permissions!r} is not made of r, w and m")
    for rule in resources.device_cgroup_rules:
        if not _DEVICE_RULE.fullmatch(rule):
            raise InvalidRequest(f"--device-cgroup-rule {rule!r} is not a rule", hint="such as 'c 1:3 rwm'")
    _check_processors(resources)
    if not -1000 <= resources.oom_score_adj <= 1000:
        raise InvalidRequest("--oom-score-adj must be between -1000 and 1000")


def _check_processors(resources: Resources) -> None:
    present = os.cpu_count() or 1
    if resources.cpuset_cpus:
        if not _CPU_LIST.fullmatch(resources.cpuset_cpus):
            raise InvalidRequest(f"--cpuset-cpus {resources.cpuset_cpus!r} is not a list", hint="such as 0-1,3")
        if max(int(number) for number in re.findall(r"\d+", resources.cpuset_cpus)) >= present:
            raise InvalidRequest(f"--cpuset-cpus {resources.cpuset_cpus}: this host has processors 0 to {present - 1}")
    if resources.nano_cpus < 0 or max(resources.nano_cpus, resources.cpu_count * 10**9) > present * 10**9:
        raise InvalidRequest(
            f"range of CPUs is from 0.01 to {present:.2f}, as there are only {present} CPUs available",
        )
    if resources.cpu_shares < 0:
        raise InvalidRequest("--cpu-shares must not be negative")
    if resources.cpu_period_us and not _MIN_PERIOD_US <= resources.cpu_period_us <= _MAX_PERIOD_US:
        raise InvalidRequest("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < resources.cpu_quota_us < _MIN_PERIOD_US:
        raise InvalidRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def check_sysctls(config: ContainerConfig) -> None:
    """Only what a namespace of the container's own holds may be set."""
    shared_network = config.network_mode == "host"
    shared_ipc = config.namespaces.ipc == "host"
    for name in config.sysctls:
        if name.startswith("net."):
            if shared_network:
                raise InvalidRequest(f"sysctl {name} is the host's with --network host")
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if shared_ipc:
                raise InvalidRequest(f"sysctl {name} is the host's with --ipc host")
        elif name not in ("kernel.domainname", "kernel.hostname"):
            raise InvalidRequest(
                f"sysctl {name} is not separate in a container", hint="net.*, fs.mqueue.* and IPC's are"
            )
