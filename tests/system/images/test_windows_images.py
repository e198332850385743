"""Windows images from a real registry, on a base that takes the place of theirs: pulled, saved, committed and pushed again.

The base here is a directory of two files; real silos on real bases are in tests/system/windows.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from silo.engine.ports import PullRequest
from silo.errors import InvalidRequest, NotFound, SiloError, Unavailable, Unsupported
from silo.images import LocalImageStore
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.windows.base.environment import OS_VERSION
from tests.support.image_store import ProgressLog, Registry, StoreOnDisk, chunks_of
from tests.support.images import SmallImage, directory, file, image_archive, layer_tar, symlink
from tests.support.probes import require_program
from tests.support.registry_client import (
    RemoteLayer,
    WindowsImage,
    digest_of,
    get_manifest,
    lose_blob,
    put_image,
    put_list,
)

DRIVE = "silo/prefix/drive_c"
REGISTRY = (
    "WINE REGISTRY Version 2\n;; All keys relative to \\\\Machine\n\n#arch=win64\n\n"
    '[Software\\\\Silo] 1700000000\n#time=1da0000000000000\n"Base"="here"\n\n'
)
BASE = layer_tar(
    [
        *(directory(name) for name in ("silo", "silo/prefix", DRIVE, f"{DRIVE}/windows", f"{DRIVE}/windows/system32")),
        symlink("silo/prefix/c", "drive_c"),
        file(f"{DRIVE}/windows/system32/cmd.exe", "MZ"),
        file("silo/prefix/system.reg", REGISTRY),
        file("silo/prefix/userdef.reg", REGISTRY.replace("Machine", "User\\\\.Default")),
    ]
)
NANOSERVER = "mcr.microsoft.com/windows/nanoserver:ltsc2022"


def windows_layer(**files: str) -> bytes:
    """A layer above a base; `a__b` stands for the path a/b."""
    names = [name.replace("__", "/") for name in files]
    parents = sorted({"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)})
    members = [directory("Hives"), directory("Files"), *(directory(f"Files/{parent}") for parent in parents)]
    members += [file(f"Files/{name}", text) for name, text in zip(names, files.values(), strict=True)]
    return layer_tar(members)


MICROSOFT = RemoteLayer(tar=layer_tar([directory("Files"), file("Files/Windows/System32/config/SOFTWARE", "regf")]))
UPDATE = RemoteLayer(tar=layer_tar([directory("Files"), file("Files/Windows/System32/config/SYSTEM", "regf")]))
APP = RemoteLayer(tar=windows_layer(Windows__SYSTEM32__app="one", app__config="two"))


def nanoserver_image(*, base: tuple[RemoteLayer, ...] = (MICROSOFT,), **changes: Any) -> WindowsImage:
    steps = [("Apply image 10.0.20348.1", True), ("Install update 10.0.20348.1234", True)][: len(base)]
    image = {
        "layers": (*base, APP),
        "steps": (*steps, ("cmd /S /C copy app", True), ("CMD app", False)),
        "config": {"User": "ContainerUser", "Cmd": ["app"]},
    }
    return WindowsImage(**(image | changes))


async def store_with_base(disk: StoreOnDisk, tmp_path: Path) -> LocalImageStore:
    store = disk.open()
    await store.load(chunks_of(base_archive(tmp_path)), ProgressLog())
    return store


def base_archive(tmp_path: Path) -> Path:
    history = [{"created": "2026-01-01T00:00:00Z", "created_by": "silo base build windows (0123456789ab)"}]
    config = {"Labels": {"dev.silo.base.key": "0123"}, "User": "ContainerAdministrator", "WorkingDir": "C:\\"}
    image = SmallImage(
        tags=("windows:latest",),
        layers=(BASE,),
        config=config,
        os="windows",
        extra={"os.version": OS_VERSION, "history": history},
    )
    return image_archive(tmp_path / "base.tar", [image])


def shown(image: Image, path: str) -> str:
    """What a container of the image would read on its drive, without a mount."""
    for layer in reversed(image.layer_paths):
        found = layer / DRIVE / path
        if found.exists():
            return found.read_text()
    raise FileNotFoundError(path)


def test_a_pulled_image_runs_on_our_base_and_is_pushed_as_it_was(
    disk: StoreOnDisk, registry: Registry, tmp_path: Path
) -> None:
    image = nanoserver_image()
    digest = put_image(registry, "test/app", "1", image)
    name = f"{registry.address}/test/app"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        log = ProgressLog()
        pulled = await store.pull(PullRequest(reference=f"{name}:1"), log)
        assert pulled.id == image.id and pulled.digests == (f"{name}@{digest}",)
        assert pulled.layers == (MICROSOFT.diff_id, APP.diff_id) and len(pulled.layer_paths) == 2
        assert pulled.base is not None and (pulled.base.family, pulled.base.layers) == ("nanoserver", 1)
        assert pulled.base.os_version == "10.0.20348.1234" and pulled.base.substitute == store.get("windows").id
        # the base's spelling is the one that counts
        assert shown(pulled, "windows/system32/app") == "one" and shown(pulled, "windows/system32/cmd.exe") == "MZ"
        assert "Replaced by Silo's base" in log.statuses()
        assert [entry.size_bytes > 0 for entry in pulled.history] == [True, True, False]

        # the registry has the base: the manifest is as it was
        assert await store.push(PullRequest(reference=f"{name}:1"), ProgressLog()) == digest
        assert disk.open().get(pulled.id).layer_paths == pulled.layer_paths
        store = disk.open()
        store.remove("windows", force=False, in_use={})
        store.finish_deleting()
        assert shown(store.get(pulled.id), "windows/system32/cmd.exe") == "MZ"

    asyncio.run(scenario())


def test_foreign_base_layers_are_not_asked_for(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    base = tuple(RemoteLayer(tar=layer.tar, urls=("https://nowhere.invalid/blob",)) for layer in (MICROSOFT, UPDATE))
    put_image(registry, "test/foreign", "1", nanoserver_image(base=base, config={}))

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        pulled = await store.pull(PullRequest(reference=f"{registry.address}/test/foreign:1"), ProgressLog())
        assert pulled.base is not None and (pulled.base.family, pulled.base.layers) == ("servercore", 2)
        assert shown(pulled, "app/config") == "two"

    asyncio.run(scenario())


def test_an_image_that_does_not_tell_its_base(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    put_image(registry, "test/mute", "1", nanoserver_image(steps=()))
    name = f"{registry.address}/test/mute:1"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        with pytest.raises(SiloError, match="base") as caught:
            await store.pull(PullRequest(reference=name), ProgressLog())
        assert "--base-layers" in str(caught.value)
        with pytest.raises(InvalidRequest, match="has 2 layers, of which 3"):
            await store.pull(PullRequest(reference=name, base_layers=3), ProgressLog())
        pulled = await store.pull(PullRequest(reference=name, base_layers=1), ProgressLog())
        assert shown(pulled, "app/config") == "two"
        # from now on that base is known
        other = nanoserver_image(steps=(), config={"Cmd": ["other"]})
        put_image(registry, "test/mute", "2", other)
        again = await store.pull(PullRequest(reference=f"{registry.address}/test/mute:2"), ProgressLog())
        assert again.base is not None and again.layer_paths == pulled.layer_paths

    asyncio.run(scenario())


def test_the_newest_build_up_to_ours_is_taken(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    images = {
        version: nanoserver_image(os_version=version)
        for version in ("10.0.17763.9999", "10.0.20348.9999", "10.0.20348.100", "10.0.26100.1")
    }
    for version, image in images.items():
        put_image(registry, "test/many", version, image)
    put_list(registry, "test/many", "all", list(images.values()))
    put_list(registry, "test/many", "new", [images["10.0.26100.1"]])
    name = f"{registry.address}/test/many"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        assert (await store.pull(PullRequest(reference=f"{name}:all"), ProgressLog())).id == images[
            "10.0.20348.9999"
        ].id
        older = await store.pull(
            PullRequest(reference=f"{name}:all", platform="windows/amd64:10.0.17763"), ProgressLog()
        )
        assert older.platform.os_version == "10.0.17763.9999"
        for tag in ("new", "10.0.26100.1"):
            with pytest.raises(Unsupported, match=r"build 26100, newer than Silo's base, which is build 20348"):
                await store.pull(PullRequest(reference=f"{name}:{tag}"), ProgressLog())
        insisted = await store.pull(
            PullRequest(reference=f"{name}:new", platform="windows/amd64:10.0.26100"), ProgressLog()
        )
        assert insisted.platform.os_version == "10.0.26100.1"

    asyncio.run(scenario())


def test_a_bases_name_needs_no_registry(disk: StoreOnDisk, tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        image = await store.pull(PullRequest(reference=NANOSERVER), ProgressLog())
        assert image.tags == (NANOSERVER,) and image.config.user == "ContainerUser"
        assert image.layer_paths == store.get("windows").layer_paths
        again = await store.pull(PullRequest(reference=NANOSERVER, platform="windows"), ProgressLog())
        assert again.id == image.id
        core = await store.pull(PullRequest(reference="mcr.microsoft.com/windows/servercore:1809"), ProgressLog())
        assert core.config.user == "ContainerAdministrator" and core.id != image.id
        with pytest.raises(Unsupported, match="build 26100"):
            await store.pull(PullRequest(reference="mcr.microsoft.com/windows/nanoserver:ltsc2025"), ProgressLog())
        newer = PullRequest(
            reference="mcr.microsoft.com/windows/nanoserver:ltsc2025", platform="windows/amd64:10.0.26100"
        )
        assert (await store.pull(newer, ProgressLog())).layer_paths == image.layer_paths

    asyncio.run(scenario())


def test_without_our_base_it_is_built_or_asked_for(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    image = nanoserver_image()
    put_image(registry, "test/first", "1", image)
    name = f"{registry.address}/test/first:1"

    async def scenario() -> None:
        store = disk.open()
        for reference in (NANOSERVER, name):
            with pytest.raises(NotFound, match=r"not built \(silo base build windows\)"):
                await store.pull(PullRequest(reference=reference), ProgressLog())
        assert store.all() == () and list((disk.root / "staging").iterdir()) == []
        built = []

        async def build(progress: Any) -> Image:
            built.append(True)
            progress("windows", "making Wine", 1, 2)
            (base,) = await store.load(chunks_of(base_archive(tmp_path)), ProgressLog())
            return base

        store.build_base_by(build)
        log = ProgressLog()
        assert (await store.pull(PullRequest(reference=name), log)).id == image.id
        assert "making Wine" in log.statuses() and built == [True]

    asyncio.run(scenario())


def change(path: str, text: str) -> bytes:
    """What a container has changed, as storage and agents tell it."""
    parents = [DRIVE[: DRIVE.index("/", 5)], "silo/prefix", DRIVE]
    return layer_tar([directory("silo"), *(directory(parent) for parent in parents[1:]), file(f"{DRIVE}/{path}", text)])


async def commit(store: LocalImageStore, base: Image, changes: bytes, reference: str) -> Image:
    async def pieces() -> Any:
        yield changes

    return await store.commit(
        base,
        pieces(),
        reference=reference,
        config=base.config,
        entry=HistoryEntry(created="2026-02-02T00:00:00Z", created_by="cmd /S /C echo"),
    )


def test_a_commit_on_a_pulled_image_keeps_its_base(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    put_image(registry, "test/kept", "1", nanoserver_image())
    lose_blob(registry, MICROSOFT.digest)
    name = f"{registry.address}/test/kept"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        pulled = await store.pull(PullRequest(reference=f"{name}:1"), ProgressLog())
        made = await commit(store, pulled, change("windows/system32/more", "three"), f"{name}:2")
        assert made.layers[:2] == pulled.layers and made.base == pulled.base
        assert shown(made, "windows/system32/more") == "three" and shown(made, "app/config") == "two"
        digest = await store.push(PullRequest(reference=f"{name}:2"), ProgressLog())
        manifest = get_manifest(registry, "test/kept", digest)
        base, app, more = manifest["layers"]
        assert base["digest"] == MICROSOFT.digest and "nondistributable" in base["mediaType"]
        assert base["urls"] == [f"https://{registry.address}/v2/test/kept/blobs/{MICROSOFT.digest}"]
        assert app["digest"] == APP.digest and "urls" not in more

        store = disk.wipe()
        store = await store_with_base(disk, tmp_path)
        again = await store.pull(PullRequest(reference=f"{name}:2"), ProgressLog())
        assert again.id == made.id and shown(again, "windows/system32/more") == "three"

    asyncio.run(scenario())


def test_archives_name_the_base_and_hold_the_rest(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    image = nanoserver_image()
    put_image(registry, "test/saved", "1", image)
    lose_blob(registry, MICROSOFT.digest)
    name = f"{registry.address}/test/saved:1"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        await store.pull(PullRequest(reference=name), ProgressLog())
        archive = tmp_path / "saved.tar"
        archive.write_bytes(b"".join([piece async for piece in store.save([name])]))
        names = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()
        assert f"blobs/sha256/{APP.digest[7:]}" in names and f"blobs/sha256/{MICROSOFT.digest[7:]}" not in names

        disk.wipe()
        store = await store_with_base(disk, tmp_path)
        (loaded,) = await store.load(chunks_of(archive), ProgressLog())
        assert loaded.id == image.id and loaded.base is not None and shown(loaded, "app/config") == "two"
        layout = tmp_path / "layout"
        copy = ["skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}", f"oci:{layout}:x"]
        subprocess.run(copy, check=True, capture_output=True)
        listed = subprocess.run(
            [require_program("umoci"), "stat", "--image", f"{layout}:x", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert len([row for row in json.loads(listed.stdout)["history"] if row["layer"]]) == 2

    asyncio.run(scenario())


def test_an_image_made_here_is_pushed_on_the_true_base(registry: Registry, tmp_path: Path, disk: StoreOnDisk) -> None:
    true_base = WindowsImage(
        layers=(MICROSOFT,),
        steps=(("Apply image 10.0.20348.7", True),),
        os_version="10.0.20348.7",
        config={"User": "ContainerUser", "Env": ["PATH=C:\\Windows"]},
    )
    put_image(registry, "windows/nanoserver", "ltsc2022", true_base)
    disk.settings["bases_mirror"] = registry.address
    name = f"{registry.address}/test/made:1"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        base = await store.pull(PullRequest(reference=NANOSERVER), ProgressLog())
        made = await commit(store, base, change("tool.exe", "MZtool"), name)
        digest = await store.push(PullRequest(reference=name), ProgressLog())
        assert await store.push(PullRequest(reference=name), ProgressLog()) == digest
        assert store.get(made.id).digests == (f"{registry.address}/test/made@{digest}",)
        manifest = get_manifest(registry, "test/made", digest)
        first, second = manifest["layers"]
        assert first["digest"] == MICROSOFT.digest
        assert first["urls"] == [f"https://mcr.microsoft.com/v2/windows/nanoserver/blobs/{MICROSOFT.digest}"]
        assert second["mediaType"].endswith("tar+gzip") and "urls" not in second

        disk.wipe()
        store = await store_with_base(disk, tmp_path)
        pulled = await store.pull(PullRequest(reference=name), ProgressLog())
        assert pulled.platform.os_version == "10.0.20348.7" and pulled.layers[0] == MICROSOFT.diff_id
        assert shown(pulled, "tool.exe") == "MZtool" and pulled.config.env == ("PATH=C:\\Windows",)
        assert not any("silo" in label for label in pulled.config.labels)

    asyncio.run(scenario())


def test_the_bases_registry_is_away(registry: Registry, tmp_path: Path, disk: StoreOnDisk) -> None:
    disk.settings["bases_mirror"] = "127.0.0.1:1"
    name = f"{registry.address}/test/alone"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        base = await store.pull(PullRequest(reference=NANOSERVER), ProgressLog())
        await commit(store, base, change("tool.exe", "MZtool"), f"{name}:1")
        with pytest.raises(Unavailable, match=r"Windows hosts need the true one.*--with-silo-base"):
            await store.push(PullRequest(reference=f"{name}:1"), ProgressLog())
        await store.push(PullRequest(reference=f"{name}:1", silo_base=True), ProgressLog())
        with pytest.raises(InvalidRequest, match="made on Silo's own base"):
            own = await commit(store, store.get("windows"), change("x", "y"), f"{name}:own")
            assert own.base is None
            await store.push(PullRequest(reference=f"{name}:own"), ProgressLog())

        # another machine, which has no base: everything comes with the image
        disk.wipe()
        store = disk.open()
        pulled = await store.pull(PullRequest(reference=f"{name}:1"), ProgressLog())
        assert shown(pulled, "tool.exe") == "MZtool" and shown(pulled, "windows/system32/cmd.exe") == "MZ"

    asyncio.run(scenario())


def test_a_pulled_image_with_our_base_instead(registry: Registry, tmp_path: Path, disk: StoreOnDisk) -> None:
    put_image(registry, "test/swap", "1", nanoserver_image())
    name = f"{registry.address}/test/swap"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        await store.pull(PullRequest(reference=f"{name}:1"), ProgressLog())
        store.tag(f"{name}:1", f"{name}:ours")
        await store.push(PullRequest(reference=f"{name}:ours", silo_base=True), ProgressLog())
        disk.wipe()
        store = disk.open()
        pulled = await store.pull(PullRequest(reference=f"{name}:ours"), ProgressLog())
        assert pulled.base is None and pulled.layers == (digest_of(BASE), APP.diff_id)
        assert shown(pulled, "windows/system32/app") == "one" and pulled.config.cmd == ("app",)
        # which base it had is no longer known
        with pytest.raises(InvalidRequest, match="made on Silo's own base"):
            await store.push(PullRequest(reference=f"{name}:ours"), ProgressLog())

    asyncio.run(scenario())


def test_linux_and_windows_live_side_by_side(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    put_image(registry, "test/side", "1", nanoserver_image())
    name = f"{registry.address}/test/side:1"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        await store.pull(PullRequest(reference=name), ProgressLog())
        linux = SmallImage(tags=(name,), layers=(layer_tar([file("which", "linux")]),))
        await store.load(chunks_of(image_archive(tmp_path / "linux.tar", [linux])), ProgressLog())
        assert store.get(name).platform.os == "linux"
        assert store.get(name, platform="windows").base is not None
        assert sum(name in image.tags for image in store.all()) == 2
        config = ImageConfig(cmd=("x",))
        assert config != store.get(name, platform="windows").config

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (APP.tar[:1300], "ends"),
        (layer_tar([directory("Files"), file("Files/../../x", "x")]), r"\.\."),
        (
            layer_tar([directory("Files"), directory("Hives"), file("Hives/Software_Delta", "regf" + "x" * 5000)]),
            "Software_Delta",
        ),
        (layer_tar([directory("Files"), file("Files/con.txt", "x")]), "reserved"),
        (layer_tar([directory("Files"), symlink("Files/link", "\\\\server\\share")]), ""),
    ],
    ids=["truncated", "out of the drive", "a hive that is none", "a device's name", "a link to a server"],
)
def test_bad_layers_are_told_by_name_and_leave_nothing(
    disk: StoreOnDisk, registry: Registry, tmp_path: Path, layer: bytes, words: str
) -> None:
    bad = RemoteLayer(tar=layer)
    image = nanoserver_image(
        layers=(MICROSOFT, APP, bad),
        steps=(("Apply image 10.0.20348.1", True), ("copy app", True), ("copy more", True)),
    )
    put_image(registry, "test/bad", "1", image)

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        before = {path for folder in ("layers", "blobs/sha256") for path in (disk.root / folder).iterdir()}
        request = PullRequest(reference=f"{registry.address}/test/bad:1")
        if not words:
            pulled = await store.pull(request, ProgressLog())
            assert not (pulled.layer_paths[-1] / DRIVE / "link").exists()
            return
        with pytest.raises(InvalidRequest, match=words) as caught:
            await store.pull(request, ProgressLog())
        assert bad.diff_id[:19] in str(caught.value), caught.value
        after = {path for folder in ("layers", "blobs/sha256") for path in (disk.root / folder).iterdir()}
        assert after == before and list((disk.root / "staging").iterdir()) == []

    asyncio.run(scenario())


def test_an_image_with_our_base_is_unpacked_by_others(registry: Registry, tmp_path: Path, disk: StoreOnDisk) -> None:
    """skopeo fetches it as an OCI layout and umoci unpacks every layer, which checks all digests."""
    name = f"{registry.address}/test/others"

    async def scenario() -> None:
        store = await store_with_base(disk, tmp_path)
        base = await store.pull(PullRequest(reference=NANOSERVER), ProgressLog())
        await commit(store, base, change("tool.exe", "MZtool"), f"{name}:1")
        await store.push(PullRequest(reference=f"{name}:1", silo_base=True), ProgressLog())

    asyncio.run(scenario())
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    copy = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--override-os=windows"]
    subprocess.run([*copy, f"docker://{name}:1", f"oci:{layout}:x"], check=True, capture_output=True)
    umoci = require_program("umoci")
    subprocess.run([umoci, "raw", "unpack", "--image", f"{layout}:x", bundle], check=True, capture_output=True)
    assert (bundle / "Files/tool.exe").read_text() == "MZtool" and (bundle / "Hives").is_dir()
    assert (bundle / DRIVE / "windows/system32/cmd.exe").read_text() == "MZ"
