"""A Windows image from its Dockerfile to a registry and back: build, push, wipe, pull, run at both levels, commit, push again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import find_vm_image
from tests.support.daemon import Docker
from tests.support.image_store import Registry, run_registry
from tests.support.images import directory, file, layer_tar
from tests.support.registry_client import RemoteLayer, WindowsImage, get_manifest, lose_blob, put_image
from tests.support.windows import windows_docker

DOCKERFILE = """\
# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
ARG VERSION=1.2
ENV APP_VERSION=${VERSION}
WORKDIR C:\\app
COPY greeting.txt c:/APP/data/
RUN setx /M PATH "%PATH%;C:\\app\\bin" && `
    mkdir bin && `
    echo @echo tool %APP_VERSION% %1> bin\\tool.cmd
RUN reg add HKLM\\Software\\Acme /v Installed /d %APP_VERSION% && `
    reg add HKCU\\Software\\Acme /v Seen /d yes && `
    del C:\\windows\\win.ini
LABEL vendor=acme
CMD tool run & type data\\greeting.txt & reg query HKLM\\Software\\Acme & reg query HKCU\\Software\\Acme
"""
SAYS = ("tool 1.2 run", "hello from the context", "Installed    REG_SZ    1.2", "Seen    REG_SZ    yes")
BASE_LAYERS = tuple(
    RemoteLayer(tar=layer_tar([directory("Files"), file(f"Files/Windows/System32/config/{name}", "regf")]))
    for name in ("SOFTWARE", "SYSTEM")
)
TRUE_BASE = WindowsImage(
    layers=BASE_LAYERS,
    steps=(("Apply image 10.0.20348.1", True), ("Install update 10.0.20348.2700", True)),
    os_version="10.0.20348.2700",
)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with pytest.MonkeyPatch.context() as patch:
        # the client without buildx would say so itself
        patch.setenv("DOCKER_BUILDKIT", "0")
        with windows_docker(windows_bases_mirror="127.0.0.1:5999", vm_pool="0") as client:
            yield client


@pytest.fixture(scope="module")
def registry(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """On the loopback that the daemon sees, at the address that it asks for bases."""
    yield from run_registry(tmp_path_factory.mktemp("registry"), prefix=docker.silod.within_network(), port=5999)


def test_from_a_dockerfile_to_a_registry_and_back(docker: Docker, registry: Registry, tmp_path: Path) -> None:
    within = docker.silod.call_within_network
    within(lambda: put_image(registry, "windows/servercore", "ltsc2022", TRUE_BASE))
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "greeting.txt").write_text("hello from the context\n")
    name = f"{registry.address}/acme/tool"
    docker("build", "-t", f"{name}:1", str(tmp_path))
    assert_says(docker, f"{name}:1")
    docker("push", f"{name}:1")

    (descriptor,) = [digest for digest in docker.inspect(f"{name}:1")["RepoDigests"] if digest.startswith(name)]
    manifest = within(lambda: get_manifest(registry, "acme/tool", descriptor.partition("@")[2]))
    layers = manifest["layers"]
    assert [layer["digest"] for layer in layers[:2]] == [layer.digest for layer in BASE_LAYERS]
    assert all(layer["urls"] for layer in layers[:2]) and not any("urls" in layer for layer in layers[2:])
    for layer in BASE_LAYERS:
        lose_blob(registry, layer.digest)

    wipe(docker)
    docker("pull", f"{name}:1")
    pulled = docker.inspect(f"{name}:1")
    assert (pulled["Os"], pulled["OsVersion"]) == ("windows", "10.0.20348.2700")
    assert pulled["SiloBase"]["Layers"] == 2 and pulled["SiloBase"]["Replaces"] == "servercore"
    assert pulled["RootFS"]["Layers"][:2] == [layer.diff_id for layer in BASE_LAYERS]
    assert pulled["Config"]["Labels"] == {"vendor": "acme"}
    assert_says(docker, f"{name}:1")

    find_vm_image()
    assert_says(docker, f"{name}:1", "--isolation", "hyperv")

    docker("run", "--name", "changed", f"{name}:1", "cmd", "/c", "setx /M EXTRA more & echo new> C:\\app\\NEW.txt")
    docker("commit", "changed", f"{name}:2")
    docker("push", f"{name}:2")
    wipe(docker)
    docker("pull", f"{name}:2")
    said = docker(
        "run", "--rm", f"{name}:2", "cmd", "/c", "tool run & echo [%EXTRA%] & type C:\\APP\\new.TXT & dir C:\\Windows"
    )
    assert "tool 1.2 run" in said and "[more]" in said and "new" in said and "win.ini" not in said
    assert len(docker.inspect(f"{name}:2")["RootFS"]["Layers"]) == len(pulled["RootFS"]["Layers"]) + 1


def assert_says(docker: Docker, image: str, *flags: str) -> None:
    said = docker("run", "--rm", *flags, image)
    assert all(text in said for text in SAYS), said
    listed = docker("run", "--rm", *flags, image, "cmd", "/c", "if exist C:\\windows\\win.ini echo there")
    assert "there" not in listed


def wipe(docker: Docker) -> None:
    """Everything but Silo's base."""
    if left := docker("ps", "-aq").split():
        docker("rm", "-f", "-v", *left)
    docker("builder", "prune", "-a", "-f")
    docker("image", "prune", "-a", "-f")
    assert docker("images", "-aq").split() == []
