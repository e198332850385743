"""Archives between Silo and skopeo, which reads and writes what docker and podman do, by the same library as podman."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from silo.images import LocalImageStore
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import (
    SmallImage,
    busybox_image,
    busybox_image_tar,
    busybox_layer,
    file,
    image_archive,
    layer_tar,
    whiteout,
)
from tests.support.probes import require_program


def skopeo(*words: str | Path) -> None:
    program = require_program("skopeo")
    done = subprocess.run([program, "--insecure-policy", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def save(store: LocalImageStore, path: Path, *references: str) -> Path:
    with path.open("wb") as out:
        async for piece in store.save(references):
            out.write(piece)
    return path


def two_images() -> list[SmallImage]:
    upper = layer_tar([file("etc/motd", "hello"), whiteout("etc/group")])
    return [
        busybox_image(tags=("busybox:latest", "registry.example:5000/team/box:1.0")),
        SmallImage(tags=("app:2",), layers=(busybox_layer(), upper), config={"Cmd": ["cat", "/etc/motd"]}),
    ]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_saved_loads_with_the_same_digests(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = disk.open()
        await store.load(chunks_of(image_archive(tmp_path / "in.tar", two_images())), ProgressLog())
        before = {path.name for path in (disk.root / "blobs/sha256").iterdir()}
        images = {image.id: image.tags for image in store.all()}
        first = await save(store, tmp_path / "first.tar", "busybox", "registry.example:5000/team/box:1.0", "app:2")
        store = disk.wipe()
        loaded = await store.load(chunks_of(first), ProgressLog())
        assert {image.id: image.tags for image in loaded} == images
        assert {path.name for path in (disk.root / "blobs/sha256").iterdir()} == before
        second = await save(store, tmp_path / "second.tar", "busybox", "registry.example:5000/team/box:1.0", "app:2")
        assert digest_of(first) == digest_of(second)

    asyncio.run(scenario())


def test_names_in_a_saved_archive(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = disk.open()
        await store.load(chunks_of(image_archive(tmp_path / "in.tar", two_images())), ProgressLog())
        store.tag("busybox", "busybox:second")
        by_name = contents(await save(store, tmp_path / "name.tar", "busybox"))
        assert [sorted(item["RepoTags"]) for item in by_name] == [["busybox:latest", "busybox:second"]]
        one_tag = contents(await save(store, tmp_path / "tag.tar", "busybox:second"))
        assert [item["RepoTags"] for item in one_tag] == [["busybox:second"]]
        by_id = contents(await save(store, tmp_path / "id.tar", store.get("app:2").id[7:19]))
        assert [item["RepoTags"] for item in by_id] == [None]

    asyncio.run(scenario())


def contents(archive: Path) -> list[dict[str, list[str]]]:
    with tarfile.open(archive) as opened:
        member = opened.extractfile("manifest.json")
        assert member is not None
        items: list[dict[str, list[str]]] = json.load(member)
        return items


def test_skopeo_reads_what_is_saved(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = disk.open()
        await store.load(chunks_of(image_archive(tmp_path / "in.tar", two_images())), ProgressLog())
        saved = await save(store, tmp_path / "app.tar", "app:2")
        image = store.get("app:2")
        skopeo("copy", f"docker-archive:{saved}", f"dir:{tmp_path / 'from-docker'}")
        assert json.loads((tmp_path / "from-docker/manifest.json").read_text())["config"]["digest"] == image.id
        skopeo("copy", "--preserve-digests", f"oci-archive:{saved}", f"dir:{tmp_path / 'from-oci'}")
        manifest = (tmp_path / "from-oci/manifest.json").read_bytes()
        assert (disk.root / "blobs/sha256" / hashlib.sha256(manifest).hexdigest()).exists()
        both = await save(store, tmp_path / "both.tar", "busybox:latest", "app:2")
        skopeo("copy", f"docker-archive:{both}:app:2", f"dir:{tmp_path / 'second'}")
        assert json.loads((tmp_path / "second/manifest.json").read_text())["config"]["digest"] == image.id
        skopeo("copy", f"oci-archive:{both}:2", f"dir:{tmp_path / 'third'}")

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["docker-archive:{}:app:2", "oci-archive:{}:docker.io/library/app:2"])
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_what_skopeo_writes_is_loaded(disk: StoreOnDisk, tmp_path: Path, target: str, packing: str) -> None:
    source = image_archive(tmp_path / "in.tar", two_images()[1:])
    out = tmp_path / "out.tar"
    skopeo("copy", f"docker-archive:{source}", target.format(out))
    if packing == "gzip":
        out.write_bytes(gzip.compress(out.read_bytes(), 1))
    elif packing == "zstd":
        out.write_bytes(zstandard.compress(out.read_bytes(), 1))

    async def scenario() -> None:
        store = disk.open()
        (image,) = await store.load(chunks_of(out), ProgressLog())
        assert image.tags == ("app:2",) and image.config.cmd == ("cat", "/etc/motd") and len(image.layers) == 2
        assert (image.layer_paths[1] / "etc/motd").read_text() == "hello"
        assert image.layers == tuple("sha256:" + hashlib.sha256(layer).hexdigest() for layer in two_images()[1].layers)

    asyncio.run(scenario())


def test_a_layer_mounts_as_the_lower_one_of_an_overlay(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = disk.open()
        await store.load(chunks_of(image_archive(tmp_path / "in.tar", two_images())), ProgressLog())
        image = store.get("app:2")
        lower = ":".join(str(path) for path in reversed(image.layer_paths))
        for name in ("upper", "work", "merged"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
        try:
            merged = tmp_path / "merged"
            assert not (merged / "etc/group").exists() and (merged / "etc/passwd").exists()
            done = subprocess.run(["chroot", merged, "cat", "/etc/motd"], capture_output=True, text=True, check=True)
            assert done.stdout == "hello"
        finally:
            subprocess.run(["umount", tmp_path / "merged"], check=True)

    asyncio.run(scenario())


def test_a_load_is_killed_at_any_moment(disk: StoreOnDisk, tmp_path: Path) -> None:
    """Only rubbish is left, which the next process removes; then the same archive loads."""
    layer = layer_tar([file(f"d{n % 40}/f{n}", "x" * 3000) for n in range(4000)])
    archive = image_archive(tmp_path / "in.tar", [SmallImage(tags=("many:1",), layers=(layer,))])
    script = tmp_path / "load.py"
    script.write_text(
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of\n"
        "async def main():\n"
        "    store = StoreOnDisk(Path(sys.argv[1])).open()\n"
        "    print('begun', flush=True)\n"
        "    await store.load(chunks_of(Path(sys.argv[2])), ProgressLog())\n"
        "    print('done', flush=True)\n"
        "asyncio.run(main())\n"
    )
    seen = set()
    for delay_ms in (5, 30, 80, 130, 200, 300):
        with subprocess.Popen(
            [sys.executable, script, disk.root, archive],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay_ms / 1000)
            process.kill()
        seen.add(bool(list((disk.root / "staging").iterdir())))
        store = disk.open()  # no row was written: the rows of the killed process were its own
        store.collect_garbage()
        store.finish_deleting()
        for name in ("staging", "layers", "blobs/sha256"):
            assert list((disk.root / name).iterdir()) == [], (delay_ms, name)
    assert True in seen  # at least once it was killed in the middle

    async def scenario() -> None:
        store = disk.open()
        (image,) = await store.load(chunks_of(archive), ProgressLog())
        assert sum(1 for _ in image.layer_paths[0].rglob("f*")) == 4000
        assert store.collect_garbage() == 0

    asyncio.run(scenario())


def test_garbage_is_collected_beside_a_running_load(disk: StoreOnDisk, tmp_path: Path) -> None:
    layer = layer_tar([file(f"d{n % 40}/f{n}", "x" * 3000) for n in range(3000)])
    archive = image_archive(tmp_path / "in.tar", [SmallImage(tags=("many:1",), layers=(layer,))])
    busybox = busybox_image_tar(tmp_path / "busybox.tar")

    async def scenario() -> None:
        store = disk.open()
        await store.load(chunks_of(busybox), ProgressLog())
        store.remove("busybox", force=False, in_use={})
        loading = asyncio.ensure_future(store.load(chunks_of(archive), ProgressLog()))
        rounds = 0
        while not loading.done():
            store.collect_garbage()
            rounds += 1
            await asyncio.sleep(0.01)
        (image,) = await loading
        assert rounds > 3 and store.find("busybox") is None
        assert sum(1 for _ in image.layer_paths[0].rglob("f*")) == 3000
        out = await save(store, tmp_path / "out.tar", "many:1")
        assert contents(out)[0]["RepoTags"] == ["many:1"]

    asyncio.run(scenario())


def test_the_same_archive_twice_at_once_and_cancelled(disk: StoreOnDisk, tmp_path: Path) -> None:
    layer = layer_tar([file(f"d{n % 40}/f{n}", "x" * 3000) for n in range(3000)])
    archive = image_archive(tmp_path / "in.tar", [SmallImage(tags=("many:1",), layers=(layer,))])

    async def scenario() -> None:
        store = disk.open()
        cancelled = asyncio.ensure_future(store.load(chunks_of(archive), ProgressLog()))
        others = [asyncio.ensure_future(store.load(chunks_of(archive), ProgressLog())) for _ in range(2)]
        await asyncio.sleep(0.15)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        images = [image for (image,) in await asyncio.gather(*others)]
        assert images[0].id == images[1].id and len(store.all()) == 1
        assert list((disk.root / "staging").iterdir()) == []
        assert sum(1 for _ in images[0].layer_paths[0].rglob("f*")) == 3000

    asyncio.run(scenario())
