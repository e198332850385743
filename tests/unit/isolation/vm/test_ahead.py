"""Which containers can be served by one that was begun ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from silo.isolation.vm.ahead import find_ahead, is_parked
from silo.model.container import Namespaces, Resources, Ulimit
from silo.model.mount import MountKind, PlannedMount
from silo.model.runtime import LaunchPlan, ProcessPlan, ScratchOwner
from tests.unit.isolation.vm.test_windows import named, windows

FOLDER = PlannedMount(target="/x", source=Path("/y"), kind=MountKind.BIND)
TMPFS = PlannedMount(target="/t", source=None, kind=MountKind.TMPFS)


def linux(name: str, *, more: tuple[PlannedMount, ...] = (), read_only: bool = False, **fields: Any) -> Any:
    words: dict[str, Any] = {
        "domainname": "",
        "process": ProcessPlan(args=(name,), env=(f"NAME={name}",), user="app"),
        "resources": Resources(),
        "sysctls": {},
    }
    made = named(name, **(words | fields))
    rootfs = msgspec.structs.replace(made.rootfs, read_only=read_only)
    return msgspec.structs.replace(made, mounts=(*made.mounts, *more), rootfs=rootfs)


def test_linux_names_words_folders_and_limits_do_not_matter() -> None:
    limits = Resources(memory_bytes=64 << 20, nano_cpus=10**9, pids_limit=5)
    second = linux("b", resources=limits, more=(FOLDER,), open_stdin=True, auto_remove=True, stdin_once=True)
    made = find_ahead(linux("a"))
    assert made == find_ahead(second) is not None
    assert not made.process.args and not made.process.env and made.open_stdin and not is_parked(made)


@pytest.mark.parametrize(
    "fields",
    [
        {"process": ProcessPlan(args=("a",), user="root")},
        {"process": ProcessPlan(args=("a",), user="app", cwd="/there")},
        {"process": ProcessPlan(args=("a",), user="app", tty=True)},
        {"process": ProcessPlan(args=("a",), user="app", capabilities=("CAP_KILL",))},
        {"resources": Resources(shm_size_bytes=1 << 20)},
        {"resources": Resources(ulimits=(Ulimit(name="nofile", soft=1, hard=2),))},
        {"vm": "other"},
        {"masked_paths": ()},
    ],
)
def test_linux_what_is_settled_when_it_is_begun_does(fields: dict[str, Any]) -> None:
    other = find_ahead(linux("a", **fields))
    assert other is not None and other != find_ahead(linux("a"))


@pytest.mark.parametrize(
    "fields",
    [
        {"privileged": True},
        {"init": True},
        {"read_only": True},
        {"sysctls": {"net.ipv4.ip_forward": "1"}},
        {"seccomp": "unconfined"},
        {"network": "none"},
        {"domainname": "example"},
        {"namespaces": Namespaces(user="host")},
        {"resources": Resources(oom_score_adj=5)},
        {"more": (TMPFS,)},
        {"process": ProcessPlan(args=("a" * 600_000,))},
    ],
)
def test_linux_what_cannot_be_begun_ahead(fields: dict[str, Any]) -> None:
    assert find_ahead(linux("a", **fields)) is None


def test_a_terminal_is_there_or_not_and_so_is_its_input() -> None:
    tty = ProcessPlan(args=("a",), tty=True)
    with_input, without = (find_ahead(linux("a", process=tty, open_stdin=wanted)) for wanted in (True, False))
    assert with_input is not None and without is not None and with_input != without


def test_windows_names_folders_and_limits_do_not_matter() -> None:
    first = windows("a")
    folder = PlannedMount(target="/x", source=Path("/y"), kind=MountKind.BIND)
    second = windows(
        "b", resources=Resources(memory_bytes=1 << 30), mounts=(*windows("b").mounts, folder), open_stdin=True
    )
    assert find_ahead(first) == find_ahead(second) is not None


def test_windows_another_user_image_or_vm_is_another_template() -> None:
    usual = find_ahead(windows("a"))
    owner = ScratchOwner(path="/silo/prefix", uid=1000, gid=1000)
    for other in (windows("a", scratch_owner=owner), windows("a", vm="other")):
        assert find_ahead(other) != usual
    layers = msgspec.structs.replace(windows("a").rootfs, layers=(Path("/another"),))
    assert find_ahead(msgspec.structs.replace(windows("a"), rootfs=layers)) != usual


def test_windows_a_terminal_needs_a_silo_of_its_own() -> None:
    process = msgspec.structs.replace(windows("a").process, tty=True)
    assert find_ahead(windows("a", process=process)) is None


def test_a_windows_program_is_parked_with_its_words_and_variables() -> None:
    name = "abcdefabcdef"
    launch = LaunchPlan(command_line="program", directory="C:\\", environment=("A=B",))
    first = find_ahead(windows("a", parked=True, launch=launch, hostname=name))
    second = find_ahead(windows("b", parked=True, launch=launch, hostname="123456123456"))
    assert first == second and is_parked(first)
    other = msgspec.structs.replace(launch, environment=())
    assert find_ahead(windows("a", parked=True, launch=other, hostname=name)) != first


@pytest.mark.parametrize("fields", [{"hostname": "short"}, {"mounts": (FOLDER,)}, {"parked": False}])
def test_a_windows_program_that_cannot_be_parked(fields: dict[str, Any]) -> None:
    made = find_ahead(windows("a", **{"parked": True, "hostname": "abcdefabcdef", **fields}))
    assert made is not None and not is_parked(made)
