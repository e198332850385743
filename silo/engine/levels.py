"""What an isolation level cannot give is refused by name, at create, rather than left out in silence.

A container of the level hyperv has a kernel and devices of its own. Nothing of the host's kernel can be shared with it: no
namespace, no device, no mount that goes on following the host's. Limits are of two kinds: those of the processor (--cpus,
--cpu-shares, --cpuset-cpus, …) hold the whole machine from outside, as they hold a process; those of programs (--pids-limit,
--ulimit, --shm-size, --oom-score-adj, …) are kept by the kernel inside.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from silo.errors import InvalidRequest, Unsupported
from silo.model.container import ContainerConfig, ContainerRecord
from silo.model.disk_guest import DISK_LABEL
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import Isolation
from silo.model.vm_image import PARKED_LABEL, VM_LABEL

_FOLLOWING = ("shared", "rshared", "slave", "rslave")
_ANOTHER_LEVEL = "--isolation process can"
_NOTHING_TO_SHARE = "a virtual machine shares no namespace with others"


class _Refusal(NamedTuple):
    """`option` as a user wrote it, refused where `given`."""

    option: str
    given: bool
    reason: str
    way_out: str = _ANOTHER_LEVEL


def check_level(config: ContainerConfig) -> None:
    """Raises Unsupported, naming the option, the level, the reason and a way out. `config` is settled (see Creator)."""
    if config.isolation is not Isolation.HYPERV:
        return
    for rows in (_namespaces(config), _devices_and_mounts(config), _limits(config)):
        for row in rows:
            if row.given:
                raise Unsupported(
                    f"{row.option} is not supported with --isolation hyperv", details=row.reason, hint=row.way_out
                )


def _namespaces(config: ContainerConfig) -> Iterator[_Refusal]:
    spaces, network = config.namespaces, config.network_mode
    own_network = "a virtual machine has network devices of its own"
    yield _Refusal("--network host", network == "host", own_network, "publish ports with -p, or --isolation process")
    yield _Refusal(
        f"--network {network}",
        network.startswith("container:"),
        own_network,
        "put both on a network of yours, or --isolation process",
    )
    for option, mode in (("--pid", spaces.pid), ("--ipc", spaces.ipc), ("--uts", spaces.uts)):
        foreign = mode in ("host", "shareable") or mode.startswith("container:")
        yield _Refusal(f"{option} {mode}", foreign, _NOTHING_TO_SHARE)
    yield _Refusal("--userns host", spaces.user == "host", "user ids in a virtual machine are not the host's")
    yield _Refusal("--cgroupns host", spaces.cgroup == "host", "a virtual machine has no cgroups of the host's")


def _devices_and_mounts(config: ContainerConfig) -> Iterator[_Refusal]:
    limits = config.resources
    no_device = "the host's devices are not a virtual machine's"
    for device in limits.devices:
        yield _Refusal(f"--device {device.host_path}", True, no_device)
    for rule in limits.device_cgroup_rules:
        yield _Refusal(f"--device-cgroup-rule {rule!r}", True, no_device)
    for mount in config.mounts:
        yield _Refusal(
            f"the named pipe {mount.target}",
            mount.kind is MountKind.NAMED_PIPE,
            "pipes are carried from silo to silo by the host's kernel, which a virtual machine does not share",
        )
        yield _Refusal(
            f"the propagation {mount.propagation} of {mount.source}",
            mount.kind is MountKind.BIND and mount.propagation in _FOLLOWING,
            "mounts made later on the host do not reach a virtual machine",
            "leave the propagation out, or --isolation process",
        )


def _limits(config: ContainerConfig) -> Iterator[_Refusal]:
    limits = config.resources
    no_swap = "a virtual machine's memory is fixed and has no swap"
    yield _Refusal(
        f"--memory-swap {limits.memory_swap_bytes}",
        limits.memory_swap_bytes not in (0, limits.memory_bytes),
        no_swap,
        "give --memory alone, or --isolation process",
    )
    yield _Refusal(f"--memory-swappiness {limits.memory_swappiness}", limits.memory_swappiness is not None, no_swap)
    yield _Refusal(
        f"--blkio-weight {limits.blkio_weight}", bool(limits.blkio_weight), "its kernel has its disks for itself"
    )
    yield _Refusal("--oom-kill-disable", limits.oom_kill_disable, "its kernel has nowhere else to take memory from")


def check_vm_words(config: ContainerConfig) -> None:
    """Raises InvalidRequest for a request that describes a virtual machine and asks for none."""
    if config.isolation is Isolation.HYPERV:
        return
    words = {f"--disk {config.disk.path}": DISK_LABEL} if config.disk is not None else {}
    if VM_LABEL in config.labels:
        words[f"--vm {config.labels[VM_LABEL]}"] = VM_LABEL
    if PARKED_LABEL in config.labels:
        words["--vm-parked"] = PARKED_LABEL
    for option, label in words.items():
        raise InvalidRequest(
            f"{option} (the label {label}) does not fit --isolation {config.isolation}", hint="add --isolation hyperv"
        )


def is_parked(labels: Mapping[str, str]) -> bool:
    """Of a container and its image. Raises InvalidRequest."""
    text = labels.get(PARKED_LABEL, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"the label {PARKED_LABEL} is {text!r}", hint="true or false")
    return text == "true"


def check_joined(owner: ContainerRecord) -> None:
    """Raises Unsupported where another container wants to share `owner`'s namespaces and they are in a virtual machine."""
    if owner.isolation is Isolation.HYPERV:
        raise Unsupported(
            f"the namespaces of container {owner.name} cannot be joined",
            details=f"it runs with --isolation hyperv, and {_NOTHING_TO_SHARE}",
            hint="put both on a network of yours",
        )


def check_sources(isolation: Isolation, mounts: Sequence[PlannedMount]) -> None:
    """Raises Unsupported for a bind that is neither file nor directory, where that would be dead in a virtual machine."""
    if isolation is not Isolation.HYPERV:
        return
    for mount in mounts:
        if mount.source is None or mount.kind is not MountKind.BIND:
            continue
        kind = mount.source.stat().st_mode
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            raise Unsupported(
                f"{mount.source} cannot be mounted with --isolation hyperv",
                details="a socket, pipe or device connects to the host's kernel only",
                hint="directories and files can be mounted; --isolation process takes all",
            )
