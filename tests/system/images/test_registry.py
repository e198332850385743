"""Push, wipe, pull, run by digest, against a real registry on loopback, through skopeo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from silo.engine.ports import PullRequest
from silo.errors import AccessDenied, InvalidRequest, NoSpace, NotFound, SiloError, Unavailable
from silo.images import ImageLimits, LocalImageStore
from tests.support.image_store import ProgressLog, Registry, StoreOnDisk, chunks_of
from tests.support.images import (
    SmallImage,
    busybox_image,
    busybox_image_tar,
    busybox_layer,
    file,
    image_archive,
    layer_tar,
)


async def load(store: LocalImageStore, path: Path) -> None:
    await store.load(chunks_of(path), ProgressLog())


def test_push_wipe_pull_and_run_by_digest(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/busybox"

    async def scenario() -> None:
        store = disk.open()
        await load(store, busybox_image_tar(tmp_path / "image.tar"))
        original = store.get("busybox")
        store.tag("busybox", f"{name}:1")
        log = ProgressLog()
        digest = await store.push(PullRequest(reference=f"{name}:1"), log)
        assert await store.push(PullRequest(reference=f"{name}:1"), ProgressLog()) == digest
        assert {"Preparing", "Pushed"} <= log.statuses()

        store = disk.wipe()
        assert store.all() == () and store.disk_usage_bytes() == 0
        log = ProgressLog()
        pulled = await store.pull(PullRequest(reference=f"{name}:1"), log)
        assert pulled.id == original.id and pulled.tags == (f"{name}:1",) and pulled.digests == (f"{name}@{digest}",)
        assert {"Pulling fs layer", "Download complete", "Extracting", "Pull complete"} <= log.statuses()
        by_digest = store.get(f"{name}@{digest}")
        assert by_digest.id == original.id

        log = ProgressLog()
        await store.pull(PullRequest(reference=f"{name}@{digest}"), log)
        assert "Already exists" in log.statuses() and "Downloading" not in log.statuses()
        done = subprocess.run(
            ["chroot", by_digest.layer_paths[0], "/bin/id", "-un"], capture_output=True, text=True, check=False
        )
        assert done.stdout == "root\n"

    asyncio.run(scenario())


def test_layers_that_are_here_are_not_fetched_again(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/shared"
    upper = layer_tar([file("extra", "more")])

    async def scenario() -> None:
        store = disk.open()
        small = busybox_image(tags=(f"{name}:base",))
        large = SmallImage(tags=(f"{name}:app",), layers=(busybox_layer(), upper), config={"Cmd": ["sh"]})
        await load(store, image_archive(tmp_path / "two.tar", [small, large]))
        for tag in ("base", "app"):
            await store.push(PullRequest(reference=f"{name}:{tag}"), ProgressLog())
        store = disk.wipe()
        await store.pull(PullRequest(reference=f"{name}:base"), ProgressLog())
        log = ProgressLog()
        image = await store.pull(PullRequest(reference=f"{name}:app"), log)
        existing = [item for item, status, _, _ in log.lines if status == "Already exists"]
        fetched = [item for item, status, _, _ in log.lines if status == "Pulling fs layer"]
        assert len(existing) == 1 and len(fetched) == 1
        assert (image.layer_paths[1] / "extra").read_text() == "more"

    asyncio.run(scenario())


def test_two_pulls_of_the_same_at_once(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/twice:1"

    async def scenario() -> None:
        store = disk.open()
        await load(store, busybox_image_tar(tmp_path / "image.tar", tags=(name,)))
        await store.push(PullRequest(reference=name), ProgressLog())
        store = disk.wipe()
        requests = [
            PullRequest(reference=name),
            PullRequest(reference=name),
            PullRequest(reference=name, platform="linux/amd64"),
        ]
        images = await asyncio.gather(*(store.pull(request, ProgressLog()) for request in requests))
        assert len({image.id for image in images}) == 1 and len(store.all()) == 1
        assert images[0].layer_paths[0].is_dir() and store.collect_garbage() == 0

    asyncio.run(scenario())


def test_a_platform_is_chosen_from_an_index(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    """One reference, a Linux and a Windows image under it, made as an index by skopeo itself."""
    name = f"{registry.address}/test/both"

    async def scenario() -> None:
        store = disk.open()
        linux = SmallImage(tags=(f"{name}:linux",), layers=(layer_tar([file("which", "linux")]),))
        windows = SmallImage(
            tags=(f"{name}:windows",),
            layers=(layer_tar([file("which", "windows")]),),
            os="windows",
            extra={"os.version": "10.0.20348.169"},
        )
        foreign = SmallImage(tags=(f"{name}:arm",), layers=(layer_tar([file("which", "arm")]),), architecture="arm64")
        await load(store, image_archive(tmp_path / "both.tar", [linux, windows, foreign]))
        digests = {}
        for tag in ("linux", "windows", "arm"):
            digests[tag] = await store.push(PullRequest(reference=f"{name}:{tag}"), ProgressLog())
        push_index(registry, "test/both", "latest", digests)

        store = disk.wipe()
        first = await store.pull(PullRequest(reference=name), ProgressLog())
        assert (first.platform.os, first.platform.architecture) == ("linux", "amd64")
        second = await store.pull(PullRequest(reference=name, platform="windows/amd64"), ProgressLog())
        assert second.platform.os_version == "10.0.20348.169" and second.tags == first.tags
        assert second.digests == first.digests and len(store.all()) == 2
        assert store.get(name).id == first.id and store.get(name, platform="windows").id == second.id
        third = await store.pull(PullRequest(reference=name, platform="linux/arm64"), ProgressLog())
        assert (third.layer_paths[0] / "which").read_text() == "arm" and store.get(name).id == first.id
        with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
            await store.pull(PullRequest(reference=name, platform="linux/s390x"), ProgressLog())
        with pytest.raises(NotFound, match="does not match the specified platform"):
            await store.pull(PullRequest(reference=f"{name}:linux", platform="windows/amd64"), ProgressLog())

    asyncio.run(scenario())


def push_index(registry: Registry, repository: str, tag: str, digests: dict[str, str]) -> None:
    """PUT an index of three manifests, as a builder for several platforms does."""
    platforms = {
        "arm": {"architecture": "arm64", "os": "linux", "variant": "v8"},
        "windows": {"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.169"},
        "linux": {"architecture": "amd64", "os": "linux"},
    }
    base = f"http://{registry.address}/v2/{repository}/manifests/"
    entries = []
    for key, platform in platforms.items():
        request = urllib.request.Request(
            base + digests[key], headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
        )
        with urllib.request.urlopen(request) as answer:
            raw = answer.read()
        kind = "application/vnd.oci.image.manifest.v1+json"
        entries.append({"mediaType": kind, "digest": digests[key], "size": len(raw), "platform": platform})
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    put = urllib.request.Request(base + tag, data=index, method="PUT", headers={"Content-Type": kind})
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 201


def test_what_the_registry_lacks(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/there"

    async def scenario() -> None:
        store = disk.open()
        await load(store, busybox_image_tar(tmp_path / "image.tar", tags=(f"{name}:1",)))
        await store.push(PullRequest(reference=f"{name}:1"), ProgressLog())
        with pytest.raises(NotFound, match="manifest unknown"):
            await store.pull(PullRequest(reference=f"{name}:2"), ProgressLog())
        with pytest.raises(NotFound):
            await store.pull(PullRequest(reference=f"{registry.address}/test/nowhere:1"), ProgressLog())
        with pytest.raises(NotFound, match="does not exist locally"):
            await store.push(PullRequest(reference=f"{name}:none"), ProgressLog())
        with pytest.raises(InvalidRequest):
            await store.pull(PullRequest(reference="Bad//Name"), ProgressLog())
        with pytest.raises(Unavailable, match="cannot be reached"):
            await store.pull(PullRequest(reference="127.0.0.1:1/test/x"), ProgressLog())
        assert list((disk.root / "staging").iterdir()) == []

    asyncio.run(scenario())


def test_credentials(disk: StoreOnDisk, guarded_registry: Registry, tmp_path: Path) -> None:
    name = f"{guarded_registry.address}/test/private:1"

    async def scenario() -> None:
        store = disk.open()
        await load(store, busybox_image_tar(tmp_path / "image.tar", tags=(name,)))
        with pytest.raises(AccessDenied):
            await store.push(PullRequest(reference=name), ProgressLog())
        with pytest.raises(AccessDenied):
            await store.push(PullRequest(reference=name, username="ada", password="wrong"), ProgressLog())
        await store.push(PullRequest(reference=name, username="ada", password="lovelace"), ProgressLog())
        store = disk.wipe()
        with pytest.raises(AccessDenied, match="pull access denied"):
            await store.pull(PullRequest(reference=name), ProgressLog())
        image = await store.pull(PullRequest(reference=name, username="ada", password="lovelace"), ProgressLog())
        assert image.tags == (name,)
        assert not any(b"lovelace" in path.read_bytes() for path in disk.root.glob("staging/**/*") if path.is_file())

    asyncio.run(scenario())


def test_login(disk: StoreOnDisk, guarded_registry: Registry) -> None:
    async def scenario() -> None:
        store = disk.open()
        for server in (guarded_registry.address, f"http://{guarded_registry.address}/v2/"):
            assert await store.login("ada", "lovelace", server) == "Login Succeeded"
        with pytest.raises(AccessDenied, match="incorrect username or password"):
            await store.login("ada", "wrong", guarded_registry.address)
        with pytest.raises(InvalidRequest):
            await store.login("ada", "x", "-v")
        with pytest.raises(Unavailable):
            await store.login("ada", "x", "127.0.0.1:1")
        assert list((disk.root / "staging").iterdir()) == []

    asyncio.run(scenario())


def test_a_pull_that_the_disk_cannot_hold(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/large:1"

    async def scenario() -> None:
        store = disk.open()
        await load(store, busybox_image_tar(tmp_path / "image.tar", tags=(name,)))
        await store.push(PullRequest(reference=name), ProgressLog())
        disk.wipe()
        store = disk.open(ImageLimits(free_bytes=1 << 60))
        with pytest.raises(NoSpace):
            await store.pull(PullRequest(reference=name), ProgressLog())
        assert list((disk.root / "blobs/sha256").iterdir()) == []

    asyncio.run(scenario())


def test_a_blob_that_the_registry_damaged(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/test/damaged:1"
    layer = layer_tar([file("only-here", "x" * 5000)])

    async def scenario() -> None:
        store = disk.open()
        await load(store, image_archive(tmp_path / "image.tar", [SmallImage(tags=(name,), layers=(layer,))]))
        await store.push(PullRequest(reference=name), ProgressLog())
        for link in registry.storage.glob("docker/registry/v2/repositories/test/damaged/_layers/sha256/*"):
            blob = registry.storage / "docker/registry/v2/blobs/sha256" / link.name[:2] / link.name / "data"
            data = blob.read_bytes()
            if data.startswith(b"\x1f\x8b"):
                blob.write_bytes(data[:-20] + bytes(20))
        store = disk.wipe()
        with pytest.raises(SiloError) as caught:
            await store.pull(PullRequest(reference=name), ProgressLog())
        assert "digest" in str(caught.value).lower(), caught.value
        assert store.all() == ()
        assert list((disk.root / "layers").iterdir()) == [] and list((disk.root / "blobs/sha256").iterdir()) == []

    asyncio.run(scenario())


def test_a_pull_is_cancelled(disk: StoreOnDisk) -> None:
    """From a registry that accepts connections and never answers."""

    async def scenario() -> None:
        async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(ignore, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = disk.open()
        pulling = asyncio.ensure_future(store.pull(PullRequest(reference=f"127.0.0.1:{port}/x"), ProgressLog()))
        for _ in range(100):
            await asyncio.sleep(0.05)
            if skopeo_talking_to(port):
                break
        assert skopeo_talking_to(port)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert not skopeo_talking_to(port) and list((disk.root / "staging").iterdir()) == []
        server.close()

    asyncio.run(scenario())


def skopeo_talking_to(port: int) -> list[Path]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = command.read_bytes()
            if words.startswith(b"skopeo") and f":{port}/".encode() in words:
                found.append(command)
    return found
