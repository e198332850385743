"""The OCI configuration of a container in a guest: the process level's, with what the machine around it makes needless left out.

The guest is the container's alone: it shares the guest's network, the boundary is the machine, and what limits the host's
resources is the cgroup of QEMU. Limits inside are the container's own, so that a program that eats memory is killed, not the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from silo.host.cgroup_files import DEFAULT_DEVICE_RULES, writes_v2
from silo.isolation.seccomp import SeccompInputs
from silo.isolation.spec import Json, SpecInputs, StagedMount, build_spec
from silo.isolation.vm.session import FILES, FOLDERS, ROOT
from silo.model.accounts import Identity
from silo.model.container import Resources
from silo.model.mount import MountKind, PlannedMount
from silo.model.runtime import ContainerPlan

CGROUP = "/container"
MAIN = "main"
"""The name of the container's task."""
INIT = f"{FILES}/init"
_LIMITS = ("memory.max", "memory.low", "pids.max")


def folders_of(plan: ContainerPlan) -> tuple[PlannedMount, ...]:
    """The mounts whose sources are folders or files of the host, in the order of their numbers."""
    return tuple(mount for mount in plan.mounts if mount.kind is not MountKind.TMPFS and not is_special(plan, mount))


def special_files(plan: ContainerPlan) -> dict[str, PlannedMount]:
    """Name → the mount of a file that the engine writes (hosts, hostname, resolv.conf): copied, not served."""
    return {mount.source.name: mount for mount in plan.mounts if mount.source and is_special(plan, mount)}


def is_special(plan: ContainerPlan, mount: PlannedMount) -> bool:
    return mount.source is not None and mount.source.parent == plan.directory


def limits(resources: Resources) -> dict[str, str]:
    """Files of the container's cgroup in the guest → values. There is no swap, and processors are limited outside."""
    return {write.file: write.value for write in writes_v2(resources) if write.file in _LIMITS}


def build_guest_spec(plan: ContainerPlan, identity: Identity, seccomp: SeccompInputs) -> Json:
    """What the agent's `run` gets."""
    # the guest's network is the container's, but a machine has a network device even where none is wanted
    alone = plan.network == "none"
    inputs = SpecInputs(
        root=ROOT,
        identity=identity,
        namespaces={"pid": "", "ipc": "", "uts": "", "cgroup": "", **({"network": ""} if alone else {})},
        mounts=tuple(_staged(plan)),
        cgroup_path=CGROUP,
        init_source=INIT if plan.init else "",
        oom_score_adj=plan.resources.oom_score_adj or None,
        device_rules=("a",) if plan.privileged else DEFAULT_DEVICE_RULES,
        **seccomp,
    )
    # kernel parameters are the guest's: the agent sets them
    sysctls = {name: value for name, value in plan.sysctls.items() if alone and name.startswith("net.")}
    spec = build_spec(msgspec.structs.replace(plan, sysctls=sysctls), inputs)
    spec["linux"]["resources"]["unified"] = limits(plan.resources)
    if plan.privileged:
        _show_devices(spec["mounts"])
    return spec


def build_early_spec(plan: ContainerPlan, identity: Identity, seccomp: SeccompInputs) -> Json:
    """As `build_guest_spec`, with the machine's names: those of a container that runs already can then still be changed."""
    spec = build_guest_spec(plan, identity, seccomp)
    for name in ("hostname", "domainname"):
        spec.pop(name, None)
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "uts"]
    return spec


def _show_devices(mounts: Sequence[dict[str, Any]]) -> None:
    """All of the machine's, which are none of the host's."""
    for mount in mounts:
        if mount["destination"] == "/dev":
            mount.update(type="devtmpfs", source="devtmpfs", options=["nosuid", "noexec"])


def _staged(plan: ContainerPlan) -> list[StagedMount]:
    numbers = {id(mount): number for number, mount in enumerate(folders_of(plan))}
    staged = []
    for mount in plan.mounts:
        read_only = ("ro",) if mount.read_only else ()
        if mount.kind is MountKind.TMPFS:
            staged.append(StagedMount(mount.target, "", mount.kind, (*filter(None, mount.options), *read_only)))
            continue
        number = numbers.get(id(mount))
        source = f"{FILES}/{mount.source.name}" if number is None and mount.source else f"{FOLDERS}/{number}"
        staged.append(StagedMount(mount.target, source, MountKind.BIND, ("rprivate", *read_only)))
    return staged


def read_special_files(plan: ContainerPlan) -> Mapping[str, bytes]:
    """Path in the guest → contents, of those that are there. Blocks."""
    found = {}
    for name, mount in special_files(plan).items():
        if mount.source is not None and mount.source.exists():
            found[f"{FILES}/{name}"] = mount.source.read_bytes()
    return found
