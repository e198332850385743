"""Which namespaces a container makes, joins or leaves to the host, from its modes: "", host, container:ID, none, shareable.

A process can join another container's namespace only when it has rights in the user namespace that owns it: whoever joins
one, shares the other's user namespace (and so its ids). What contradicts that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from silo.errors import Conflict, InvalidRequest
from silo.model.runtime import ContainerPlan

_PROC_NAMES = {"user": "user", "network": "net", "ipc": "ipc", "pid": "pid", "uts": "uts", "cgroup": "cgroup"}


class _Record(Protocol):
    @property
    def plan(self) -> ContainerPlan: ...
    @property
    def pid(self) -> int: ...
    @property
    def first_host_uid(self) -> int: ...


class Neighbour(Protocol):
    """A container that may be joined."""

    @property
    def record(self) -> _Record: ...
    @property
    def running(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Joined:
    """`paths` as in SpecInputs.namespaces; `memory_owner` is the container whose /dev/shm is shared."""

    paths: dict[str, str]
    own_user_namespace: bool
    own_network: bool
    first_host_uid: int = 0
    memory_owner: str = ""


def join_namespaces(plan: ContainerPlan, others: Mapping[str, Neighbour], *, user_namespaces: bool) -> Joined:
    """Raises InvalidRequest (contradiction, unknown mode), Conflict (the other container does not run)."""
    modes = {
        "network": "" if plan.network == "private" else plan.network,
        "ipc": plan.namespaces.ipc,
        "pid": plan.namespaces.pid,
        "uts": plan.namespaces.uts,
        "cgroup": plan.namespaces.cgroup,
    }
    paths: dict[str, str] = {}
    owners: dict[str, Neighbour] = {}
    for kind, mode in modes.items():
        if mode == "host":
            continue
        if mode.startswith("container:"):
            owner = _running(others, mode.partition(":")[2], kind)
            owners[kind] = owner
            paths[kind] = f"/proc/{owner.record.pid}/ns/{_PROC_NAMES[kind]}"
        elif mode in ("", "private") or (kind == "ipc" and mode in ("none", "shareable")):
            paths[kind] = ""
        else:
            raise InvalidRequest(f"unknown mode {mode!r} for the {kind} namespace")
    memory_owner = _memory_owner(owners["ipc"]) if "ipc" in owners else ""
    wants_host = plan.namespaces.user == "host" or plan.privileged or not user_namespaces
    if plan.namespaces.user not in ("", "host", "private"):
        raise InvalidRequest(f"unknown mode {plan.namespaces.user!r} for the user namespace", hint="use --userns=host")
    ranges = {owner.record.first_host_uid for owner in owners.values()}
    if len(ranges) > 1:
        raise InvalidRequest("the containers whose namespaces are to be joined have different user namespaces")
    if not ranges:
        own = not wants_host
        return Joined({"user": "", **paths} if own else paths, own, paths.get("network") == "")
    first = ranges.pop()
    if first and wants_host:
        raise InvalidRequest(
            "a container in the host's user namespace cannot join a container that has its own",
            hint="start both with --userns=host, or neither",
        )
    if first:
        pid = next(iter(owners.values())).record.pid
        paths = {"user": f"/proc/{pid}/ns/user", **paths}
    return Joined(paths, False, paths.get("network") == "", first, memory_owner)


def _running(others: Mapping[str, Neighbour], container_id: str, kind: str) -> Neighbour:
    owner = others.get(container_id)
    if owner is None or not owner.running:
        raise Conflict(f"cannot join the {kind} namespace of container {container_id[:12]}: it is not running")
    return owner


def _memory_owner(owner: Neighbour) -> str:
    plan = owner.record.plan
    if plan.namespaces.ipc != "shareable":
        raise InvalidRequest(
            f"cannot join IPC of container {plan.id[:12]}: it is not shareable",
            hint="start that one with --ipc=shareable",
        )
    return plan.id
