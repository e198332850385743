"""Recipe, manifest, initrd and the builder's refusals: what needs no packages."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from silo.debian.packages import Package
from silo.errors import InvalidRequest, NoSpace, ToolMissing
from silo.isolation.vm.base import build, recipe, rootfs
from silo.isolation.vm.base.damage import StoredFile
from silo.isolation.vm.base.initrd import APPLETS, INIT, initrd_entries
from silo.isolation.vm.base.kernel import Module
from silo.isolation.vm.base.manifest import VmManifest, parse_manifest

CRUN = Package("crun", "1.21-1", "amd64", "ab" * 32, 10, "crun_1.21-1_amd64.deb")
LIBC = Package("libc6", "2.41-12", "amd64", "cd" * 32, 20, "libc6_2.41-12_amd64.deb")
AGENT = {"/silo/agent": "12" * 32}


def manifest(key: str = "ef" * 32) -> VmManifest:
    return VmManifest(key, 1_700_000_000, "6.12.1-amd64", (CRUN, LIBC), ("crc16", "ext4"), AGENT)


def test_key_depends_on_every_input() -> None:
    key = recipe.recipe_hash([CRUN, LIBC], AGENT, init=b"a")
    assert key == recipe.recipe_hash([LIBC, CRUN], AGENT, init=b"a")
    others = [
        recipe.recipe_hash([CRUN], AGENT, init=b"a"),
        recipe.recipe_hash([CRUN, LIBC], {"/silo/agent": "34" * 32}, init=b"a"),
        recipe.recipe_hash([CRUN, LIBC], AGENT, init=b"b"),
        recipe.recipe_hash([CRUN, LIBC], AGENT, init=b"a", kernel="linux-image-rt-amd64"),
    ]
    assert len({key, *others}) == 5


def test_manifest_survives_storing() -> None:
    stored = manifest().as_json()
    again = parse_manifest(stored)
    assert again.as_json() == stored
    assert again.modules == ("crc16", "ext4")
    assert recipe.recipe_hash(again.packages, again.extra_files, init=b"") == recipe.recipe_hash(
        [CRUN, LIBC], AGENT, init=b""
    )
    other = VmManifest("k", 1, "6.12.1-rt-amd64", (CRUN,), (), AGENT, "linux-image-rt-amd64")
    assert parse_manifest(other.as_json()).kernel_package == "linux-image-rt-amd64"
    assert again.kernel_package == recipe.KERNEL_PACKAGE and b"kernel_package" not in stored
    files = {"vmlinuz": StoredFile(7, "ab" * 32), "initrd.img": StoredFile(9, "cd" * 32)}
    assert parse_manifest(dataclasses.replace(other, files=files).as_json()).files == files
    assert not again.files and b'files": [{"name' not in stored
    with pytest.raises(ValueError, match="Expecting"):
        parse_manifest(b"")


def test_initrd_holds_all_that_init_calls() -> None:
    entries = list(initrd_entries(b"script", b"busybox", [Module("crc16", b"1"), Module("ext4", b"2")]))
    names = [entry.path for entry in entries]
    assert len(set(names)) == len(names)
    for place, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:place], f"{name} comes before its directory"
    by_name = {entry.path: entry for entry in entries}
    assert by_name["modules/order"].data == b"crc16.ko\next4.ko\n"
    assert by_name["modules/ext4.ko"].data == b"2"
    assert by_name["init"].mode & 0o111
    assert all(by_name[f"bin/{name}"].data == b"busybox" for name in APPLETS)


# What the shell of init.sh does itself.
SHELL_WORDS = set("case do done echo esac exec exit export fi for if read set then until while".split())


def test_init_calls_nothing_that_the_initrd_lacks() -> None:
    text = INIT.read_text()
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    commands = {line.split()[0] for line in lines} | set(re.findall(r"\b(?:exec|do) (?:/bin/)?(\w+)", text))
    commands = {word for word in commands if word.isidentifier()}
    assert commands - SHELL_WORDS - {"die"} == set(APPLETS) - {"sh"}
    assert subprocess.run(["sh", "-n", INIT], check=False).returncode == 0
    # -I and -S: nothing of an environment or of site-packages decides what the agent imports
    assert "/usr/bin/python3 -I -S /silo/agent" in text
    for parameter in ("silo.root=", "silo.dax=1", "silo.init="):
        assert parameter in text


def test_erofs_is_packed_so_that_it_can_be_mapped_and_is_the_same_again() -> None:
    words = rootfs.erofs_arguments(Path("/out/root.erofs"), Path("/tree"), epoch_s=1_700_000_000, uuid="u-u")
    assert words == [
        "mkfs.erofs",
        "-Enoinline_data",
        "-T1700000000",
        "-Uu-u",
        "--all-root",
        "-x-1",
        "--quiet",
        Path("/out/root.erofs"),
        Path("/tree"),
    ]


@pytest.mark.parametrize("target", ["relative", "/", "/a/../b", "/a//b"])
def test_extra_files_need_plain_paths(tmp_path: Path, target: str) -> None:
    with pytest.raises(InvalidRequest):
        build.build_vm_base(tmp_path / "data", extra_files={target: tmp_path / "file"})
    assert not (tmp_path / "data").exists()


def test_missing_tools_and_space_are_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.debian.inputs.os.geteuid", lambda: 0)
    have = shutil.which
    monkeypatch.setattr("silo.debian.inputs.shutil.which", lambda name, path: None if name == "mkfs.erofs" else "/x")
    with pytest.raises(ToolMissing, match=r"mkfs\.erofs") as caught:
        build.build_vm_base(tmp_path / "data", extra_files={})
    assert "erofs-utils" in caught.value.hint
    monkeypatch.setattr("silo.debian.inputs.shutil.which", lambda name, path: have("sh"))
    monkeypatch.setattr(build, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(NoSpace, match="utility VM"):
        build.build_vm_base(tmp_path / "data", extra_files={})


def test_a_damaged_result_is_not_reused(tmp_path: Path) -> None:
    key = recipe.recipe_hash([CRUN, LIBC], AGENT, init=b"i")
    directory = tmp_path / "vm" / key
    directory.mkdir(parents=True)
    (tmp_path / "vm/current").symlink_to(key)
    (directory / "manifest.json").write_bytes(manifest(key).as_json())
    for name in ("vmlinuz", "initrd.img"):
        (directory / name).write_bytes(b"")
        assert build.find_vm_base(tmp_path, key) is None
    (directory / "root.erofs").write_bytes(b"")
    found = build.find_vm_base(tmp_path, key)
    assert found is not None
    assert found.reused
    usual = recipe.KERNEL_PACKAGE
    assert build._find_current(tmp_path, AGENT, b"i", kernel_package=usual) == found
    assert build._find_current(tmp_path, AGENT, b"another init.sh", kernel_package=usual) is None
    assert build._find_current(tmp_path, {}, b"i", kernel_package=usual) is None
    assert build._find_current(tmp_path, AGENT, b"i", kernel_package="linux-image-rt-amd64") is None
    assert build._find_current(tmp_path, AGENT, b"i", name="rt", kernel_package=usual) is None
