"""A real silod on roots of its own, and the real clients that drive it: the `docker` program and docker-py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import Docker, Silod, docker_for, running_silod
from tests.support.images import busybox_image_tar
from tests.support.windows import cache_root, load_windows


@pytest.fixture(scope="session")
def silod() -> Iterator[Silod]:
    with running_silod(cache_root=str(cache_root())) as daemon:
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
