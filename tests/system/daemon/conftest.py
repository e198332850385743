"""A daemon for each test, since these kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import Docker, docker_for, running_silod
from tests.support.images import busybox_image_tar


@pytest.fixture
def docker() -> Iterator[Docker]:
    """A client of a fresh daemon that has the image busybox; `docker.silod` can be killed and started."""
    with running_silod(windows_pool="0") as daemon:
        client = docker_for(daemon)
        client("load", "-i", str(busybox_image_tar(daemon.root / "busybox.tar")))
        yield client
        if left := client("ps", "-aq").split():
            client("rm", "-f", "-v", *left)
