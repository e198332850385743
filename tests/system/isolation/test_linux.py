"""What two Linux containers keep apart, at both levels: the counterpart of test_silos.py.

Every kind is looked for from another container, and it must not be found; and from the same container, where it must be.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.system.isolation.meeting import (
    LINUX_PROBE,
    Looks,
    holding,
    holding_outside,
    look,
    refused_join,
    start_linux,
    yama_restricts,
)

pytestmark = pytest.mark.system

FILES = ("file", "temporary file", "deletion", "fifo")
NETWORK = ("abstract socket", "port", "port taken")
MEMORY = ("shared memory", "semaphore", "message queue", "POSIX message queue", "file in /dev/shm")
PROCESSES = ("process listed", "process signalled", "process traced", "process killed")
KINDS = (*FILES, *NETWORK, *MEMORY, *PROCESSES, "socket")
ON_THE_HOST = ("temporary file", "abstract socket", "port", "port taken", "shared memory", *PROCESSES)
"""What holding_outside holds."""


def _victim_lives(docker: Docker, name: str) -> bool:
    return "victim" in docker("top", name)


@pytest.fixture(scope="module")
def looks(docker: Docker, linux_folder: Path, level: str) -> Iterator[Looks]:
    token = f"silo-{time.monotonic_ns()}"
    joins = level == "process"
    for name, network in (("one", "bridge"), ("two", "bridge"), *([("joined", "container:one")] if joins else [])):
        start_linux(docker, linux_folder, name, "--isolation", level, "--network", network)

    def seen(name: str, token: str = token) -> dict[str, str]:
        return look(docker, name, token, LINUX_PROBE)

    with holding_outside(docker, token + "-outside"):
        outside = seen("two", token + "-outside")
    with holding(docker, "one", token, LINUX_PROBE):
        separate = seen("two")
        after_separate = _victim_lives(docker, "one")
        joined = seen("joined") if joins else refused_join(docker, "one", "busybox")
        shared = seen("one")
        after_shared = _victim_lives(docker, "one")
    docker("stop", "-t", "1", "one")
    docker("start", "one")
    restarted = seen("one")
    yield Looks(separate, shared, outside, joined, restarted, after_separate, after_shared)
    docker("rm", "-f", "one", "two", *(["joined"] if joins else []))


def test_every_kind_was_looked_for(looks: Looks) -> None:
    assert set(looks.separate) == set(looks.shared) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_two_containers_do_not_meet(looks: Looks, kind: str) -> None:
    assert looks.separate[kind] == "alone"


@pytest.mark.parametrize("kind", KINDS)
def test_one_shared_container_does(looks: Looks, kind: str, level: str) -> None:
    assert looks.shared[kind] == ("alone" if kind == "process traced" and yama_restricts(level) else "met")


@pytest.mark.parametrize("kind", ON_THE_HOST)
def test_the_host_is_not_met(looks: Looks, kind: str) -> None:
    assert looks.outside[kind] == "alone"


@pytest.mark.parametrize("kind", KINDS)
def test_a_joined_network_shares_the_network_alone(looks: Looks, kind: str) -> None:
    if isinstance(looks.joined, str):
        assert "hyperv" in looks.joined, "a machine's network is nobody else's"
        return
    assert looks.joined[kind] == ("met" if kind in NETWORK else "alone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_keeps_the_disk_alone(looks: Looks, kind: str) -> None:
    assert looks.restarted[kind] == ("met" if kind in FILES else "alone")


def test_a_program_dies_by_its_own_container_alone(looks: Looks) -> None:
    assert looks.victim_after_separate
    assert not looks.victim_after_shared


@pytest.mark.usefixtures("looks")
def test_a_new_container_has_nothing_of_an_earlier_one(docker: Docker, linux_folder: Path, level: str) -> None:
    start_linux(docker, linux_folder, "three", "--isolation", level)
    again = look(docker, "three", "another", LINUX_PROBE)
    docker("rm", "-f", "three")
    assert set(again.values()) == {"alone"}
