"""A real silod on roots of its own, and the real clients that drive it: the `docker` program and docker-py.

Every test runs twice, in a daemon whose containers are processes' and in one whose containers are machines' by default, unless
it is marked `process_level`: those are about what a machine cannot have, and say what.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker, Silod, docker_for, running_silod
from tests.support.images import busybox_image_tar
from tests.support.probes import require_program
from tests.support.windows import cache_root, load_windows


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "level" in metafunc.fixturenames:
        one = "windows" in metafunc.fixturenames or metafunc.definition.get_closest_marker("process_level")
        metafunc.parametrize("level", ["process"] if one else ["process", "hyperv"], scope="session")


@pytest.fixture(scope="session")
def silod(level: str) -> Iterator[Silod]:
    if level == "hyperv":
        require_program("qemu-system-x86_64", "qemu-system-x86")
        find_vm_image()
    # no machine waits for containers: one that is made while a test runs makes both slow
    with running_silod(cache_root=str(cache_root()), default_isolation=level, vm_pool="0") as daemon:
        yield daemon


@pytest.fixture(scope="session")
def docker_session(silod: Silod) -> Iterator[Docker]:
    client = docker_for(silod)
    client("load", "-i", str(busybox_image_tar(silod.root / "busybox.tar")))
    yield client
    remaining = client("ps", "-aq").split()
    if remaining:
        client("rm", "-f", "-v", *remaining)
    client("network", "prune", "-f")
    client("volume", "prune", "-af")


@pytest.fixture
def docker(docker_session: Docker) -> Iterator[Docker]:
    """Removes the containers that a test leaves."""
    before = set(docker_session("ps", "-aq", "--no-trunc").split())
    yield docker_session
    left = set(docker_session("ps", "-aq", "--no-trunc").split()) - before
    if left:
        docker_session("rm", "-f", "-v", *left)


@pytest.fixture(scope="session")
def windows_image(silod: Silod) -> str:
    load_windows(silod)
    return "windows"


@pytest.fixture
def windows(docker: Docker, windows_image: str) -> Docker:
    """A client of a daemon that has the image `windows`."""
    assert docker.try_("image", "inspect", windows_image).returncode == 0
    return docker
