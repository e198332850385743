"""Which namespaces are made, joined or left; what contradicts is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from silo.errors import Conflict, InvalidRequest
from silo.isolation.process.joining import join_namespaces
from silo.model.container import Namespaces
from silo.model.runtime import ContainerPlan
from tests.unit.isolation.test_spec import plan


@dataclass
class FakeRecord:
    plan: ContainerPlan
    pid: int = 42
    first_host_uid: int = 1 << 30


@dataclass
class FakeNeighbour:
    record: FakeRecord
    running: bool = True


OTHER = "d" * 64
SHAREABLE = FakeNeighbour(FakeRecord(plan(id=OTHER, namespaces=Namespaces(ipc="shareable"))))


def test_all_private_by_default() -> None:
    joined = join_namespaces(plan(), {}, user_namespaces=True)
    assert joined.paths == dict.fromkeys(("user", "network", "ipc", "pid", "uts", "cgroup"), "")
    assert joined.own_user_namespace and joined.own_network


@pytest.mark.parametrize("fields", [{"namespaces": Namespaces(user="host")}, {"privileged": True}])
def test_the_hosts_user_namespace(fields: dict[str, object]) -> None:
    joined = join_namespaces(plan(**fields), {}, user_namespaces=True)
    assert "user" not in joined.paths and not joined.own_user_namespace and joined.own_network


def test_a_kernel_without_user_namespaces() -> None:
    assert "user" not in join_namespaces(plan(), {}, user_namespaces=False).paths


def test_host_modes_leave_namespaces_out() -> None:
    modes = Namespaces(ipc="host", pid="host", uts="host", cgroup="host")
    assert set(join_namespaces(plan(network="host", namespaces=modes), {}, user_namespaces=True).paths) == {"user"}


def test_joining_takes_the_others_user_namespace() -> None:
    joined = join_namespaces(plan(network=f"container:{OTHER}"), {OTHER: SHAREABLE}, user_namespaces=True)
    assert joined.paths["network"] == "/proc/42/ns/net" and joined.paths["user"] == "/proc/42/ns/user"
    assert (joined.own_user_namespace, joined.own_network, joined.first_host_uid) == (False, False, 1 << 30)
    shared = join_namespaces(
        plan(namespaces=Namespaces(ipc=f"container:{OTHER}")), {OTHER: SHAREABLE}, user_namespaces=True
    )
    assert shared.memory_owner == OTHER and shared.own_network


def test_refusals() -> None:
    private = FakeNeighbour(FakeRecord(plan(id="e" * 64), first_host_uid=5))
    others = {OTHER: SHAREABLE, "e" * 64: private, "f" * 64: FakeNeighbour(private.record, running=False)}
    for fields, error in (
        ({"namespaces": Namespaces(ipc="container:" + "e" * 64)}, InvalidRequest),
        ({"network": "container:" + "f" * 64}, Conflict),
        ({"network": "container:unknown"}, Conflict),
        ({"network": "odd"}, InvalidRequest),
        ({"namespaces": Namespaces(user="odd")}, InvalidRequest),
        ({"network": f"container:{OTHER}", "namespaces": Namespaces(user="host")}, InvalidRequest),
        ({"network": f"container:{OTHER}", "namespaces": Namespaces(pid="container:" + "e" * 64)}, InvalidRequest),
    ):
        with pytest.raises(error):
            join_namespaces(plan(**fields), others, user_namespaces=True)
