"""The real docker client on images: load, tag, history, save, commit, import, push, pull by digest, rmi."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.building import Builder
from tests.support.daemon import Docker, docker_for, running_silod
from tests.support.image_store import Registry, run_registry
from tests.support.images import busybox_image_tar, busybox_layer


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with running_silod() as daemon:
        client = docker_for(daemon)
        client("load", "-i", str(busybox_image_tar(tmp_path_factory.mktemp("image") / "busybox.tar")))
        yield client
        left = client("ps", "-aq").split()
        if left:
            client("rm", "-f", *left)


@pytest.fixture(scope="module")
def near_registry(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on the loopback that the daemon sees."""
    yield from run_registry(tmp_path_factory.mktemp("near"), prefix=docker.silod.within_network())


def test_images_history_and_inspect(docker: Docker) -> None:
    row = json.loads(docker("images", "--format", "json").splitlines()[0])
    assert (row["Repository"], row["Tag"], row["Size"]) == ("busybox", "latest", "1.98MB")
    history = docker("history", "--format", "{{.CreatedBy}}|{{.Size}}", "busybox").splitlines()
    assert history == ["/bin/sh -c #(nop) CMD|0B", "/bin/sh -c #(nop) ADD layer 0|1.98MB"]
    inspected = json.loads(docker("image", "inspect", "busybox"))[0]
    assert inspected["Config"]["Cmd"] == ["sh"] and inspected["Os"] == "linux" and inspected["Size"] > 1_900_000


def test_save_and_load(docker: Docker, tmp_path: Path) -> None:
    docker("tag", "busybox", "copy:1")
    docker("save", "-o", str(tmp_path / "out.tar"), "copy:1")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert {"manifest.json", "index.json", "oci-layout"} <= set(archive.getnames())
    assert "Untagged: copy:1" in docker("rmi", "copy:1")
    assert "Loaded image: copy:1" in docker("load", "-i", str(tmp_path / "out.tar"))
    docker("rmi", "copy:1")


def test_commit_import_and_removal(docker: Docker, tmp_path: Path) -> None:
    docker("run", "--name", "maker", "busybox", "sh", "-c", "echo made > /made; rm /etc/group")
    docker("commit", "-m", "by hand", "-c", "CMD cat /made", "maker", "made:1")
    assert docker("run", "--rm", "made:1").strip() == "made"
    assert docker("run", "--rm", "made:1", "ls", "/etc").split() == sorted(
        {"hostname", "hosts", "passwd", "resolv.conf"}
    )
    refused = docker.try_("rmi", docker("images", "-q", "busybox").strip())
    assert refused.returncode == 1 and "conflict" in refused.stderr
    docker("rm", "maker")
    assert "Deleted: sha256:" in docker("rmi", "made:1")
    (tmp_path / "root.tar").write_bytes(busybox_layer())
    docker("import", "-c", "CMD echo imported", str(tmp_path / "root.tar"), "imported:1")
    assert docker("run", "--rm", "imported:1").strip() == "imported"
    docker("rmi", "imported:1")


def test_push_wipe_pull_run_by_digest(docker: Docker, near_registry: Registry) -> None:
    name = f"{near_registry.address}/client/busybox"
    docker("tag", "busybox", f"{name}:2")
    pushed = docker("push", f"{name}:2")
    digest = pushed.rpartition("digest: ")[2].split()[0]
    docker("rmi", f"{name}:2")
    pulled = docker("pull", f"{name}@{digest}")
    assert f"Digest: {digest}" in pulled
    assert docker("run", "--rm", f"{name}@{digest}", "echo", "by digest").strip() == "by digest"
    docker("rmi", f"{name}@{digest}")
    ran = docker("run", "--rm", f"{name}:2", "echo", "pulled by run")
    assert "pulled by run" in ran
    docker("rmi", f"{name}:2")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "--rm", "127.0.0.1:1/nowhere"), "cannot be reached"),
        (("rmi", "absent"), "No such image: absent:latest"),
        (("save", "absent"), "No such image: absent:latest"),
        (("tag", "busybox", "Bad/Name"), "invalid reference"),
        (("image", "inspect", "absent"), "No such image: absent"),
    ],
)
def test_what_is_wrong_is_said(docker: Docker, words: tuple[str, ...], text: str) -> None:
    done = docker.try_(*words)
    assert done.returncode != 0 and text in done.stderr, done.stderr


def test_a_bad_archive(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    done = docker.try_("load", "-i", str(tmp_path / "bad.tar"))
    assert done.returncode != 0 and "the archive is damaged" in done.stderr + done.stdout


def test_a_build_pulls_what_it_is_built_upon(docker: Docker, near_registry: Registry) -> None:
    build = Builder(docker)
    reference = f"{near_registry.address}/team/base:1"
    docker("tag", "busybox", reference)
    docker("push", reference)
    docker("rmi", reference)
    text = f"FROM {reference}\nCOPY --from={reference} /bin/busybox /copy\nCMD echo built\n"
    printed = build.dockerfile(text, "-t", "pulled")
    assert f"Pulling {reference}\n" in printed and printed.count("Pulling") == 1
    assert docker("run", "--rm", "pulled") == "built"
    assert "Pulling" not in build.dockerfile(text)
    again = build.dockerfile(text, "--pull")
    assert f"Pulling {reference}\n" in again and again.count("Using cache") == 2
    done = build.try_("-", stdin=f"FROM {near_registry.address}/team/none\n".encode())
    assert done.returncode == 1 and "Dockerfile:1: " in done.stderr
    docker("rmi", "-f", "pulled", reference)


def test_what_images_share_is_counted_once(docker: Docker) -> None:
    docker("run", "--name", "sharer", "busybox", "sh", "-c", "dd if=/dev/zero of=/more bs=1k count=100 2>/dev/null")
    docker("commit", "sharer", "shared:1")
    rows = {row["Type"]: row for row in map(json.loads, docker("system", "df", "--format", "json").splitlines())}
    assert not rows["Images"]["Reclaimable"].startswith("-"), rows
    docker("rm", "sharer")
    docker("rmi", "shared:1")
