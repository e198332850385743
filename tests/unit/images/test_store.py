"""The store as the engine sees it: load, import, commit, layouts, garbage; and bad archives, which leave nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from silo.errors import Conflict, ImageNotFound, InvalidRequest, NoSpace, SiloError
from silo.images import ImageLimits, LocalImageStore
from silo.model.image import Healthcheck, HistoryEntry, Image, ImageConfig
from tests.support.image_store import ProgressLog, StoreOnDisk, chunks_of
from tests.support.images import (
    EPOCH_S,
    Entry,
    SmallImage,
    directory,
    file,
    image_archive,
    layer_tar,
    symlink,
    whiteout,
)

T = TypeVar("T")
LAYER = layer_tar([directory("etc"), file("etc/motd", "hello")])
UPPER = layer_tar([file("etc/motd", "changed"), file("new", "n")])
CONFIG = {
    "User": "app",
    "Env": ["PATH=/bin", "A=b=c"],
    "Entrypoint": ["/bin/x"],
    "Cmd": ["y"],
    "WorkingDir": "/srv",
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "Labels": {"k": "v"},
    "StopSignal": "SIGINT",
    "StopTimeout": 3,
    "Shell": ["cmd", "/S", "/C"],
    "ArgsEscaped": True,
    "OnBuild": ["RUN x"],
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_500_000_000, "Retries": 4},
}
EXPECTED = ImageConfig(
    user="app",
    env=("PATH=/bin", "A=b=c"),
    entrypoint=("/bin/x",),
    cmd=("y",),
    working_dir="/srv",
    exposed_ports=("53/udp", "80/tcp"),
    volumes=("/data",),
    labels={"k": "v"},
    stop_signal="SIGINT",
    stop_timeout_s=3,
    shell=("cmd", "/S", "/C"),
    args_escaped=True,
    on_build=("RUN x",),
    healthcheck=Healthcheck(test=("CMD", "true"), interval_s=1.5, retries=4),
)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


async def bytes_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def load(store: LocalImageStore, path: Path) -> tuple[Image, ...]:
    return run(store.load(chunks_of(path, 5000), ProgressLog()))


def one_image(tmp_path: Path, **changes: Any) -> Path:
    image = SmallImage(**({"tags": ("x:1",), "layers": (LAYER, UPPER), "config": CONFIG} | changes))
    return image_archive(tmp_path / "in.tar", [image])


def assert_empty(disk: StoreOnDisk) -> None:
    assert disk.rows.rows == {} and list((disk.root / "staging").iterdir()) == []
    assert [path for path in disk.root.rglob("*") if path.is_file() or path.is_symlink()] == []


def test_load_tells_everything_about_an_image(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    log = ProgressLog()
    extra = {"author": "ada", "comment": "c", "os.version": "10.0.1.2", "os.features": ["win32k"], "variant": "v2"}
    path = one_image(tmp_path, extra=extra, os="windows")
    (image,) = run(store.load(chunks_of(path), log))
    assert image.config == EXPECTED
    assert (image.author, image.comment, image.os_features) == ("ada", "c", ("win32k",))
    assert str(image.platform) == "windows/amd64/v2:10.0.1.2"
    assert image.tags == ("x:1",) and image.size_bytes == len("hello") + len("changed") + 1
    assert [entry.size_bytes for entry in image.history] == [5, 8, 0]
    assert image.layers == tuple("sha256:" + hashlib.sha256(layer).hexdigest() for layer in (LAYER, UPPER))
    assert (image.layer_paths[1] / "etc/motd").read_text() == "changed"
    assert log.lines[0][:2] == (image.layers[0][7:19], "Loading layer")
    assert disk.open().get("x:1") == image == store.find("x:1", platform="windows/amd64")
    assert store.find("x:1", platform="linux") is None


def test_layers_are_shared_and_collected_with_their_last_image(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    load(store, image_archive(tmp_path / "a.tar", [SmallImage(tags=("a:1",), layers=(LAYER,))]))
    load(store, image_archive(tmp_path / "b.tar", [SmallImage(tags=("b:1",), layers=(LAYER, UPPER))]))
    assert len(list((disk.root / "layers").iterdir())) == 2
    used = store.disk_usage_bytes()
    store.remove("b:1", force=False, in_use={})
    store.finish_deleting()
    assert len(list((disk.root / "layers").iterdir())) == 1 and list((disk.root / "staging").iterdir()) == []
    assert used - store.disk_usage_bytes() >= len(UPPER) + len("changed" + "n")
    assert store.collect_garbage() == 0
    assert (store.get("a:1").layer_paths[0] / "etc/motd").read_text() == "hello"
    load(store, tmp_path / "b.tar")
    assert (store.get("b:1").layer_paths[1] / "new").read_text() == "n"


def test_what_is_on_the_disk_without_a_row_is_not_trusted(disk: StoreOnDisk, tmp_path: Path) -> None:
    """As after a power failure: the directory of a layer is there, its files are empty."""
    forged = disk.root / "layers" / hashlib.sha256(LAYER).hexdigest()
    forged.mkdir(parents=True)
    (forged / "motd").write_text("half written")
    blob = disk.root / "blobs/sha256" / hashlib.sha256(LAYER).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_text("")
    store = disk.open()
    (image,) = load(store, one_image(tmp_path))
    assert (image.layer_paths[0] / "etc/motd").read_text() == "hello"


def test_a_layer_that_vanished_comes_back_by_loading_again(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    (image,) = load(store, one_image(tmp_path))
    image.layer_paths[0].rename(tmp_path / "lost")
    (again,) = load(store, one_image(tmp_path))
    assert (again.layer_paths[0] / "etc/motd").read_text() == "hello"


def test_import_of_a_root_file_system(disk: StoreOnDisk) -> None:
    store = disk.open()
    packings: list[tuple[str, bytes]] = [("plain", LAYER), ("gz", gzip.compress(LAYER)), ("xz", lzma.compress(LAYER))]
    for name, data in packings:
        image = run(
            store.import_rootfs(
                bytes_of(data[:100], data[100:]),
                reference=f"made:{name}",
                platform="linux/amd64",
                message="from afar",
                config=EXPECTED,
            )
        )
        assert image.layers == ("sha256:" + hashlib.sha256(LAYER).hexdigest(),) and image.config == EXPECTED
        assert (
            image.tags == (f"made:{name}",) and image.comment == "from afar" and image.history[0].comment == "from afar"
        )
        assert image.created.endswith("Z")
    nameless = run(store.import_rootfs(bytes_of(LAYER), reference="", platform="", message="", config=ImageConfig()))
    assert nameless.tags == () and nameless.platform.os == "linux" and nameless.comment == ""
    for bad in (b"no tar at all" * 100, LAYER[:700], gzip.compress(LAYER)[:-5]):
        with pytest.raises(InvalidRequest):
            run(store.import_rootfs(bytes_of(bad), reference="bad", platform="", message="", config=ImageConfig()))
    assert store.find("bad") is None and list((disk.root / "staging").iterdir()) == []


def test_commit(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    (base,) = load(store, one_image(tmp_path))
    layer = layer_tar([file("added", "1"), whiteout("new")])
    entry = HistoryEntry(created_by="/bin/sh", author="me", comment="why")
    config = ImageConfig(cmd=("z",))
    image = run(store.commit(base, bytes_of(layer), reference="child:1", config=config, entry=entry))
    assert image.layers == (*base.layers, "sha256:" + hashlib.sha256(layer).hexdigest())
    assert image.config == config and image.parent == base.id and image.author == "me" and image.comment == "why"
    assert image.history[:-1] == base.history and image.history[-1].created_by == "/bin/sh"
    assert image.history[-1].size_bytes == 1 and not image.history[-1].empty_layer
    assert (image.layer_paths[2] / "added").read_text() == "1"
    same_files = run(store.commit(image, None, reference="", config=EXPECTED, entry=HistoryEntry(comment="labels")))
    assert same_files.layers == image.layers and same_files.tags == () and same_files.history[-1].empty_layer
    assert disk.open().get(same_files.id).config == EXPECTED
    with pytest.raises(Conflict, match="dependent child"):
        store.remove(base.id, force=False, in_use={})
    with pytest.raises(InvalidRequest):
        run(store.commit(base, bytes_of(layer[:300]), reference="bad", config=config, entry=entry))
    assert store.find("bad") is None


def test_commit_of_an_image_that_is_gone(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    (base,) = load(store, one_image(tmp_path))
    store.remove("x:1", force=False, in_use={})
    with pytest.raises(ImageNotFound):
        run(store.commit(base, None, reference="y", config=base.config, entry=HistoryEntry()))


def write_layout(path: Path, image: SmallImage) -> Path:
    """An OCI layout, written by hand."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "config": put(image.config_json(), "application/vnd.oci.image.config.v1+json"),
        "layers": [put(layer, "application/vnd.oci.image.layer.v1.tar") for layer in image.layers],
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def test_a_layout_is_linked_not_copied(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    small = SmallImage(layers=(LAYER,), os="windows", extra={"os.version": "10.0.20348.1"})
    layout = write_layout(tmp_path / "layout", small)
    image = run(store.import_layout(layout, reference="windows"))
    assert image.tags == ("windows:latest",) and image.platform.os == "windows" and image.id == small.id()
    name = hashlib.sha256(LAYER).hexdigest()
    assert (disk.root / "blobs/sha256" / name).stat().st_ino == (layout / "blobs/sha256" / name).stat().st_ino
    again = run(store.import_layout(layout, reference="windows:other"))
    assert again.tags == ("windows:latest", "windows:other")


def test_a_layout_that_leaves_out_media_types(disk: StoreOnDisk, tmp_path: Path) -> None:
    """They are optional in the specification; what Silo writes on has them."""
    layout = write_layout(tmp_path / "layout", SmallImage(layers=(LAYER,)))
    index = json.loads((layout / "index.json").read_text())
    del index["manifests"][0]["mediaType"]
    (layout / "index.json").write_text(json.dumps(index))
    store = disk.open()
    run(store.import_layout(layout, reference="x"))

    async def saved() -> bytes:
        return b"".join([piece async for piece in store.save(["x"])])

    with tarfile.open(fileobj=io.BytesIO(run(saved()))) as archive:
        member = archive.extractfile("index.json")
        assert member is not None
        assert json.load(member)["manifests"][0]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_damaged_layouts(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    with pytest.raises(InvalidRequest, match="no OCI layout"):
        run(store.import_layout(tmp_path / "nowhere", reference="x"))
    layout = write_layout(tmp_path / "layout", SmallImage(layers=(LAYER,)))
    blob = layout / "blobs/sha256" / hashlib.sha256(LAYER).hexdigest()
    blob.write_bytes(LAYER + b"x")
    with pytest.raises(InvalidRequest, match="is damaged: its digest is"):
        run(store.import_layout(layout, reference="x"))
    blob.unlink()
    with pytest.raises(InvalidRequest, match="missing"):
        run(store.import_layout(layout, reference="x"))
    assert_empty(disk)


def raw_archive(path: Path, members: list[Entry]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.size, info.mtime = member.kind, member.link, len(member.data), EPOCH_S
            archive.addfile(info, io.BytesIO(member.data))
    return path


CONFIG_JSON = SmallImage(layers=(LAYER,)).config_json()


def contents(**changes: object) -> Entry:
    return file(
        "manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]} | changes])
    )


BAD: dict[str, tuple[list[Entry], str]] = {
    "no contents": ([file("x", "y")], "neither manifest.json nor index.json"),
    "not JSON": ([file("manifest.json", "{")], "manifest.json of the archive"),
    "not a list": ([file("manifest.json", "{}")], "manifest.json of the archive"),
    "empty list": ([file("manifest.json", "[]")], "names no image"),
    "deep JSON": ([file("manifest.json", "[" * 100_000)], "manifest.json of the archive"),
    "layer lacking": ([file("c.json", CONFIG_JSON), contents()], "lacks 'l/layer.tar'"),
    "config lacking": ([file("l/layer.tar", LAYER), contents()], "lacks 'c.json'"),
    "config outside": ([contents(Config="../../etc/passwd")], "out of the root"),
    "config is a link out": ([symlink("c.json", "/etc/passwd"), contents()], "lacks 'c.json'"),
    "link loop": ([symlink("c.json", "d.json"), symlink("d.json", "c.json"), contents()], "lacks 'c.json'"),
    "other layer": (
        [file("c.json", CONFIG_JSON), file("l/layer.tar", UPPER), contents()],
        "its content has the digest",
    ),
    "layer count": (
        [file("c.json", CONFIG_JSON), file("l/layer.tar", LAYER), contents(Layers=[])],
        "names 1 layers in its config and 0",
    ),
    "config no JSON": (
        [file("c.json", "x"), file("l/layer.tar", LAYER), contents()],
        "image config is not what it should be",
    ),
    "config of wrong types": (
        [file("c.json", '{"rootfs": {"diff_ids": "x"}}'), file("l/layer.tar", LAYER), contents()],
        "image config",
    ),
    "diff id": (
        [file("c.json", '{"rootfs": {"diff_ids": ["sha256:../../x"]}}'), file("l/layer.tar", LAYER), contents()],
        "no sha256 digest",
    ),
    "bad tag": (
        [file("c.json", CONFIG_JSON), file("l/layer.tar", LAYER), contents(RepoTags=["Bad Name"])],
        "invalid reference",
    ),
    "device": ([Entry(name="null", kind=tarfile.CHRTYPE), contents()], "no part of an image"),
    "layer no tar": (
        [
            file("c.json", json.dumps({"rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(b"x" * 600).hexdigest()]}})),
            file("l/layer.tar", b"x" * 600),
            contents(),
        ],
        "no tar header",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(disk: StoreOnDisk, tmp_path: Path, name: str) -> None:
    members, words = BAD[name]
    store = disk.open()
    with pytest.raises(InvalidRequest) as caught:
        load(store, raw_archive(tmp_path / "bad.tar", members))
    assert words in str(caught.value)
    assert_empty(disk)


def test_bad_layouts_in_archives(disk: StoreOnDisk, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", SmallImage(layers=(LAYER,)))
    store = disk.open()

    def pack(name: str) -> Path:
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.add(layout, arcname=".")
        return tmp_path / name

    blob = layout / "blobs/sha256" / hashlib.sha256(LAYER).hexdigest()
    blob.write_bytes(LAYER + b"more")
    with pytest.raises(InvalidRequest, match="the archive is damaged: a layer"):
        load(store, pack("damaged.tar"))
    blob.unlink()
    with pytest.raises(InvalidRequest, match="lacks"):
        load(store, pack("lacking.tar"))
    (layout / "index.json").write_text('{"manifests": [{"digest": "sha256:zz", "size": 3}]}')
    with pytest.raises(InvalidRequest, match="no sha256 digest"):
        load(store, pack("index.tar"))
    assert_empty(disk)


@pytest.mark.parametrize("cut", [0, 100, 600, 3000])
def test_truncated_archives(disk: StoreOnDisk, tmp_path: Path, cut: int) -> None:
    path = one_image(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidRequest):
        load(disk.open(), path)
    assert_empty(disk)


def test_limits_of_archives(disk: StoreOnDisk, tmp_path: Path) -> None:
    path = one_image(tmp_path)
    with pytest.raises(InvalidRequest, match="too large"):
        load(disk.open(ImageLimits(archive_entries=2)), path)
    with pytest.raises(InvalidRequest, match="too large"):
        load(disk.open(ImageLimits(archive_bytes=3000)), path)
    with pytest.raises(InvalidRequest, match="document of"):
        load(disk.open(ImageLimits(document_bytes=100)), path)
    with pytest.raises(InvalidRequest, match="has 2 layers"):
        load(disk.open(ImageLimits(layers_per_image=1)), path)
    with pytest.raises(NoSpace):
        load(disk.open(ImageLimits(free_bytes=1 << 60)), path)
    assert_empty(disk)


def test_a_client_that_breaks_off(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(one_image(tmp_path), 2000):
            yield chunk
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        run(disk.open().load(broken(), ProgressLog()))
    assert_empty(disk)


def test_of_several_images_a_bad_one_stops_all(disk: StoreOnDisk, tmp_path: Path) -> None:
    images = [SmallImage(tags=("good:1",), layers=(LAYER,)), SmallImage(tags=("Bad Name",), layers=(UPPER,))]
    with pytest.raises(SiloError):
        load(disk.open(), image_archive(tmp_path / "in.tar", images))
    assert_empty(disk)


def test_what_the_contents_do_not_name_is_not_kept(disk: StoreOnDisk, tmp_path: Path) -> None:
    """A tar in the archive that is no layer of it is unpacked ahead, and goes again."""
    store = disk.open()
    stray = layer_tar([file("stray")])
    members = [file("c.json", CONFIG_JSON), file("stray.tar", stray), file("l/layer.tar", LAYER), contents()]
    (image,) = load(store, raw_archive(tmp_path / "in.tar", members))
    store.finish_deleting()
    assert [path.name for path in (disk.root / "layers").iterdir()] == [image.layers[0][7:]]
    assert hashlib.sha256(stray).hexdigest() not in {path.name for path in (disk.root / "blobs/sha256").iterdir()}
    assert list((disk.root / "staging").iterdir()) == []


def test_unknown_names(disk: StoreOnDisk, tmp_path: Path) -> None:
    store = disk.open()
    load(store, one_image(tmp_path))
    for call in (lambda: store.get("nope"), lambda: store.tag("nope", "x"), lambda: store.save(["x:1", "nope"])):
        with pytest.raises(ImageNotFound, match="No such image: nope"):
            call()
    with pytest.raises(ImageNotFound):
        store.remove("nope", force=True, in_use={})
    with pytest.raises(InvalidRequest):
        store.save([])
