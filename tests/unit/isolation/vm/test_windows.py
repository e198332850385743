"""Which containers a template's silo serves, and what its configuration leaves to the machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec

from silo.isolation.launcher_messages import FLAG_MAIN, FLAG_TTY, ConsoleEvent, console_event, run_request
from silo.isolation.vm.ahead import find_ahead
from silo.isolation.vm.guest_spec import build_early_spec
from silo.model.accounts import Identity
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import LaunchPlan, ProcessPlan
from tests.unit.isolation.test_spec import plan


def named(name: str, **fields: Any) -> Any:
    """A plan whose names and places are those of one container."""
    directory = Path("/containers") / name
    hosts = PlannedMount(target="/etc/hosts", source=directory / "hosts", kind=MountKind.BIND)
    words: dict[str, Any] = {"id": name, "directory": directory, "hostname": name, "mounts": (hosts,), **fields}
    words["rootfs"] = msgspec.structs.replace(plan().rootfs, scratch=directory)
    return plan(**words)


def windows(name: str, **fields: Any) -> Any:
    words: dict[str, Any] = {
        "personality": PersonalityName.WINDOWS,
        "launch": LaunchPlan(command_line=name, directory="C:\\"),
        "process": ProcessPlan(args=("/silo/start",), env=("A=B",), user="0:0"),
    }
    return named(name, **(words | fields))


def test_a_templates_plan_names_the_files_that_clones_write() -> None:
    made = find_ahead(windows("a"))
    assert made is not None
    spec = build_early_spec(made, Identity(uid=0, gid=0), {})  # type: ignore[typeddict-item]
    bound = {mount["destination"]: mount["source"] for mount in spec["mounts"] if mount["type"] == "bind"}
    assert bound["/etc/hosts"] == "/run/files/hosts"


def test_names_are_the_machines() -> None:
    spec = build_early_spec(windows("a", domainname="example"), Identity(uid=0, gid=0), {})  # type: ignore[typeddict-item]
    assert "hostname" not in spec and "domainname" not in spec
    assert {entry["type"] for entry in spec["linux"]["namespaces"]} == {"mount", "pid", "ipc", "cgroup"}


def test_signals_as_events() -> None:
    wanted = {signal.SIGKILL: ConsoleEvent.TERMINATE, signal.SIGINT: ConsoleEvent.CTRL_C, signal.SIGWINCH: None}
    wanted |= {signal.SIGTERM: ConsoleEvent.CTRL_SHUTDOWN, signal.SIGHUP: ConsoleEvent.CTRL_SHUTDOWN}
    assert {number: console_event(number) for number in wanted} == wanted


def test_a_plan_as_a_request() -> None:
    launch = LaunchPlan(command_line="cmd", directory="C:\\", tty=True, console_size=(25, 80))
    request = run_request(launch, FLAG_MAIN)
    assert (request.flags, request.rows, request.columns) == (FLAG_MAIN | FLAG_TTY, 25, 80)
