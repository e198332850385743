"""What a silo keeps apart: processes, names, pipes, registry, files, drives, users, ports, time, services, native calls.

Every kind is looked for from another silo, and it must not be found; and from the same silo, deliberately shared, where it must
be: a probe that can find nothing proves nothing. What Linux alone keeps apart is looked for on the host as well. The twelfth
point, a kernel of one's own, is in test_machine.py; Linux containers are in test_linux.py. That a pipe meets where it has been
mapped, and only there, is in tests/system/windows/test_pipes.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.system.isolation.meeting import (
    Looks,
    holding,
    holding_outside,
    look,
    refused_join,
    start_silo,
    yama_restricts,
)

pytestmark = pytest.mark.system

SPACES = ("Local\\", "Global\\")
OBJECTS = tuple(f"{kind} in {space}" for space in SPACES for kind in "mutex event semaphore timer section job".split())
FILES = ("file", "stream", "temporary file", "deletion")
REGISTRY = ("HKLM", "HKCU", "HKU")
LINUX = (
    "Linux /proc",
    "Linux signal",
    "Linux ptrace",
    "Linux abstract socket",
    "Linux /tmp",
    "unix path by Windows",
    "Linux shared memory",
)
PORTS = ("port", "port taken")
PROCESSES = ("process listed", "process opened", "process killed")
SESSION = ("clipboard", "window", "service", "drive", "atom", "mailslot", "pipe", "volatile key")
KINDS = (*OBJECTS, *FILES, *REGISTRY, *LINUX, *PORTS, *PROCESSES, *SESSION)
KEPT = (*FILES, *REGISTRY, "service", "Linux /tmp", "unix path by Windows")
"""What a container has again after stop and start."""


def _victim_lives(docker: Docker, silo: str) -> bool:
    return "victim.exe" in docker("top", silo)


@pytest.fixture(scope="module")
def looks(docker: Docker, folder: Path, level: str) -> Iterator[Looks]:
    token = f"silo-{time.monotonic_ns()}"
    isolation = ("--isolation", level)
    joins = level == "process"
    start_silo(docker, folder, "alpha", *isolation)
    start_silo(docker, folder, "beta", *isolation)
    if joins:
        start_silo(docker, folder, "gamma", "--network", "container:alpha", *isolation)
    with holding_outside(docker, token + "-outside"):
        outside = look(docker, "beta", token + "-outside")
    with holding(docker, "alpha", token):
        separate = look(docker, "beta", token)
        after_separate = _victim_lives(docker, "alpha")
        joined = look(docker, "gamma", token) if joins else refused_join(docker, "alpha", "windows")
        shared = look(docker, "alpha", token)
        after_shared = _victim_lives(docker, "alpha")
    docker("stop", "-t", "1", "alpha")
    docker("start", "alpha")
    restarted = look(docker, "alpha", token)
    yield Looks(separate, shared, outside, joined, restarted, after_separate, after_shared)
    docker("rm", "-f", "alpha", "beta", *(["gamma"] if joins else []))


def test_every_kind_was_looked_for(looks: Looks) -> None:
    assert set(looks.separate) == set(looks.shared) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_two_silos_do_not_meet(looks: Looks, kind: str) -> None:
    assert looks.separate[kind] == "alone"


@pytest.mark.parametrize("kind", KINDS)
def test_one_shared_silo_does(looks: Looks, kind: str, level: str) -> None:
    assert looks.shared[kind] == ("alone" if kind == "Linux ptrace" and yama_restricts(level) else "met")


@pytest.mark.parametrize("kind", (*LINUX, *PORTS))
def test_the_host_is_not_met(looks: Looks, kind: str) -> None:
    assert looks.outside[kind] == "alone"


@pytest.mark.parametrize("kind", KINDS)
def test_a_joined_network_shares_the_network_alone(looks: Looks, kind: str) -> None:
    if isinstance(looks.joined, str):
        assert "hyperv" in looks.joined, "a machine's network is nobody else's"
        return
    network = (*PORTS, "Linux abstract socket")
    assert looks.joined[kind] == ("met" if kind in network else "alone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_keeps_disk_and_registry_alone(looks: Looks, kind: str) -> None:
    assert looks.restarted[kind] == ("met" if kind in KEPT else "alone")


def test_a_program_dies_by_its_own_silo_alone(looks: Looks) -> None:
    assert looks.victim_after_separate
    assert not looks.victim_after_shared


@pytest.mark.usefixtures("looks")
def test_a_new_silo_has_nothing_of_an_earlier_one(docker: Docker, folder: Path, level: str) -> None:
    start_silo(docker, folder, "delta", "--isolation", level)
    again = look(docker, "delta", "another")
    docker("rm", "-f", "delta")
    assert set(again.values()) == {"alone"}
