"""Recipe, manifest and layout: the pure parts of the builder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from silo.debian.packages import Package
from silo.errors import HostError, InvalidRequest, NoSpace
from silo.windows.base import build, recipe
from silo.windows.base.environment import OS_VERSION
from silo.windows.base.manifest import BaseManifest, parse_manifest
from silo.windows.base.oci_layout import COMMAND, write_layout
from silo.windows.base.prefix import owner_of
from silo.windows.base.tar_layer import PackedLayer

WINE = Package("libwine", "10.0~repack-6", "amd64", "ab" * 32, 10, "libwine_10.0~repack-6_amd64.deb")
ZLIB = Package("zlib1g", "1:1.3", "amd64", "cd" * 32, 20, "zlib1g_1%3a1.3_amd64.deb")


def manifest() -> BaseManifest:
    return BaseManifest("ef" * 32, 1_700_000_000, (WINE, ZLIB), {"/silo/start": "12" * 32}, files=5, shared_files=3)


def test_key_depends_on_every_input() -> None:
    key = recipe.recipe_hash([WINE, ZLIB], {"/a": "1"})
    assert key == recipe.recipe_hash([ZLIB, WINE], {"/a": "1"})
    newer = Package("zlib1g", "1:1.4", "amd64", "cd" * 32, 20, ZLIB.file)
    others = [
        recipe.recipe_hash([WINE, newer], {"/a": "1"}),
        recipe.recipe_hash([WINE, ZLIB], {"/a": "2"}),
        recipe.recipe_hash([WINE, ZLIB], {}),
    ]
    assert len({key, *others}) == 4


def test_key_can_be_computed_from_a_stored_manifest() -> None:
    again = parse_manifest(manifest().as_json())
    assert recipe.recipe_hash(again.packages, {}) == recipe.recipe_hash([WINE, ZLIB], {})


def test_every_change_has_a_reason_and_is_told() -> None:
    assert all(edit.reason for edit in recipe.REGISTRY_EDITS)
    text = manifest().as_text()
    assert text.count("\n      ") == len(recipe.REGISTRY_EDITS)
    assert "libwine 10.0~repack-6" in text
    assert "/silo/start" in text


def test_manifest_survives_storing() -> None:
    stored = manifest().as_json()
    again = parse_manifest(stored)
    assert again.as_json() == stored
    assert again.packages[0].sha256 == WINE.sha256
    with pytest.raises(ValueError, match="Expecting"):
        parse_manifest(b"")


def test_layout_is_consistent(tmp_path: Path) -> None:
    blob = tmp_path / "layer.tar"
    blob.write_bytes(b"tar")
    digest = "sha256:" + hashlib.sha256(b"tar").hexdigest()
    written = write_layout(tmp_path / "layout", blob, PackedLayer(digest, 3, 1), manifest())
    blobs = tmp_path / "layout/blobs/sha256"
    for path in blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    index = json.loads((tmp_path / "layout/index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["digest"] == written.manifest_digest
    assert entry["platform"] == {"architecture": "amd64", "os": "windows", "os.version": OS_VERSION}
    image = json.loads((blobs / written.manifest_digest.removeprefix("sha256:")).read_text())
    config = json.loads((blobs / image["config"]["digest"].removeprefix("sha256:")).read_text())
    assert image["layers"] == [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": 3}]
    assert config["rootfs"]["diff_ids"] == [digest]
    assert (config["os"], config["os.version"], config["config"]["Cmd"]) == ("windows", OS_VERSION, list(COMMAND))
    assert "zlib1g=1:1.3" in config["config"]["Labels"]["dev.silo.base.packages"]
    with pytest.raises(HostError):
        write_layout(tmp_path / "layout", blob, PackedLayer(digest, 3, 1), manifest())


def test_os_version_has_four_numbers() -> None:
    parts = OS_VERSION.split(".")
    assert parts[:3] == ["10", "0", "20348"]
    assert len(parts) == 4
    assert parts[3].isdigit()


def test_owner_of_profiles() -> None:
    assert owner_of("silo/prefix/drive_c/Users/ContainerUser") == 1000
    assert owner_of("silo/prefix/drive_c/Users/ContainerUser/Desktop") == 1000
    assert owner_of("silo/prefix/drive_c/Users/ContainerUserX") == 0
    assert owner_of("silo/prefix/drive_c/windows") == 0


@pytest.mark.parametrize("target", ["relative", "/", "/a/../b", "/a//b", "/a/."])
def test_extra_files_need_plain_paths(tmp_path: Path, target: str) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"x")
    with pytest.raises(InvalidRequest):
        build.build_base(tmp_path / "data", extra_files={target: source})
    assert not (tmp_path / "data").exists()


def test_too_little_space_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.debian.inputs.os.geteuid", lambda: 0)
    monkeypatch.setattr(build, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(NoSpace, match="GB free below"):
        build.build_base(tmp_path / "data")


def test_a_damaged_result_is_not_reused(tmp_path: Path) -> None:
    key = manifest().key
    directory = tmp_path / "base" / key
    (directory / "layout").mkdir(parents=True)
    assert build.find_base(tmp_path, key) is None
    (directory / "manifest.json").write_bytes(manifest().as_json())
    assert build.find_base(tmp_path, key) is None
    (directory / "layout/index.json").write_text("{}")
    found = build.find_base(tmp_path, key)
    assert found is not None
    assert found.reused
    (tmp_path / "base/current").symlink_to(key)
    assert build._find_current_base(tmp_path, {}) is None
