"""Images of utility VMs by name, and those that a user brings."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from silo.errors import HostError, InvalidRequest, Unavailable
from silo.isolation.vm.base import build, images
from silo.isolation.vm.base.build import build_vm_base
from silo.isolation.vm.base.damage import find_damage
from silo.isolation.vm.base.images import (
    VmBase,
    check_named,
    find_all,
    find_named,
    import_vm_base,
    kernel_release,
    remove_named,
)
from silo.wiring import UtilityVm

MIB = 1 << 20


def bz_image(version: bytes) -> bytes:
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300 : 0x300 + len(version)] = version
    return bytes(image)


def bring(directory: Path, *, kernel: bytes = b"", root_bytes: int = 2 * MIB) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "vmlinuz").write_bytes(kernel or bz_image(b"6.6.1-mine (me@there) #1 SMP"))
    (directory / "initrd.img").write_bytes(b"initrd")
    (directory / "root.erofs").write_bytes(b"")
    os.truncate(directory / "root.erofs", root_bytes)
    return directory


def test_an_image_is_imported_and_found_by_name(tmp_path: Path) -> None:
    source, data = bring(tmp_path / "mine"), tmp_path / "data"
    made = import_vm_base(data, source, name="mine")
    found = find_named(data, "mine")
    assert found == made and found.manifest.kernel_release == "6.6.1-mine" and found.manifest.packages == ()
    assert found.root.stat().st_size == 2 * MIB and found.kernel.read_bytes() == (source / "vmlinuz").read_bytes()
    assert find_named(data, "other") is None and find_named(data, "default") is None
    described = images.describe(found, "mine")
    assert (described.id, described.name, described.directory) == (made.key, "mine", data / "vm" / made.key)


def test_a_name_takes_a_new_image_and_only_what_it_stood_for_goes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = import_vm_base(data, bring(tmp_path / "one"), name="a")
    assert import_vm_base(data, tmp_path / "one", name="default") == first
    second = import_vm_base(data, bring(tmp_path / "two", root_bytes=4 * MIB), name="a")
    assert find_all(data) == {"default": first, "a": second}
    assert not remove_named(data, "none")
    assert remove_named(data, "default")
    assert not first.directory.exists() and find_all(data) == {"a": second}
    assert not list((data / "vm").glob(".building-*"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: (path / "initrd.img").unlink(), "initrd.img"),
        (lambda path: (path / "initrd.img").write_bytes(b""), "is empty"),
        (lambda path: os.truncate(path / "root.erofs", MIB), "multiple of 2 MiB"),
        (lambda path: (path / "vmlinuz").write_bytes(b"text" * 400), "no Linux kernel"),
        (lambda path: ((path / "vmlinuz").unlink(), (path / "vmlinuz").symlink_to("/etc/passwd")), "cannot read"),
        (lambda path: ((path / "vmlinuz").unlink(), os.mkfifo(path / "vmlinuz")), "not a regular file"),
    ],
)
def test_what_cannot_be_an_image_is_refused_and_leaves_nothing(tmp_path: Path, spoil: object, words: str) -> None:
    source = bring(tmp_path / "mine")
    spoil(source)  # type: ignore[operator]
    with pytest.raises(InvalidRequest, match=words):
        import_vm_base(tmp_path / "data", source, name="mine")
    assert [path.name for path in (tmp_path / "data/vm").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "-a", "a" * 65])
def test_names_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid name"):
        find_named(tmp_path, name)
    with pytest.raises(InvalidRequest, match="invalid name"):
        build_vm_base(tmp_path, extra_files={}, name=name)


def test_a_kernel_is_a_package_of_debians(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no kernel of Debian's"):
        build_vm_base(tmp_path, extra_files={}, kernel_package="bash -o x")


def test_what_kernels_say_of_themselves() -> None:
    assert kernel_release(bz_image(b"6.12.1-amd64 (x)")) == "6.12.1-amd64"
    assert kernel_release(bz_image(b"")) == "unknown" and kernel_release(b"\x7fELF rest") == "unknown"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"other".ljust(size, b"\1"))


FILES = ["vmlinuz", "initrd.img", "root.erofs"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_size_is_noticed_whenever_the_image_is_looked_for(tmp_path: Path, name: str) -> None:
    made = import_vm_base(tmp_path, bring(tmp_path / "mine"), name="mine")
    check_named(tmp_path, "mine")
    size = (made.directory / name).stat().st_size
    cut(made.directory / name)
    assert find_named(tmp_path, "mine") is None and not find_all(tmp_path)
    with pytest.raises(HostError, match="the utility VM mine is damaged") as caught:
        check_named(tmp_path, "mine")
    assert caught.value.details == f"{name} has {size // 2} bytes instead of {size}"
    assert caught.value.hint == "silo base import vm DIRECTORY --name mine"
    with pytest.raises(HostError, match="is damaged"):
        UtilityVm(tmp_path, {}).find("mine")
    (made.directory / name).unlink()
    with pytest.raises(HostError) as caught:
        check_named(tmp_path, "mine")
    assert caught.value.details == f"{name} is not there"


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_noticed_by_its_digest(tmp_path: Path, name: str) -> None:
    made = import_vm_base(tmp_path, bring(tmp_path / "mine"), name="mine")
    alter(made.directory / name)
    check_named(tmp_path, "mine")
    assert find_damage(made.directory, digests=True) == f"{name} is not what was built: its SHA-256 is another one"


def test_what_is_no_manifest_is_damage_and_what_is_not_there_is_not(tmp_path: Path) -> None:
    made = import_vm_base(tmp_path, bring(tmp_path / "mine"), name="default")
    (made.directory / "manifest.json").write_bytes(b"[1]")
    with pytest.raises(HostError) as caught:
        check_named(tmp_path, "default")
    assert (caught.value.details, caught.value.hint) == ("manifest.json is no manifest", "silo base build vm")
    (made.directory / "manifest.json").unlink()
    with pytest.raises(HostError) as caught:
        check_named(tmp_path, "default")
    assert caught.value.details == "manifest.json cannot be read: No such file or directory"
    shutil.rmtree(made.directory)
    check_named(tmp_path, "default")
    check_named(tmp_path, "other")


@pytest.mark.parametrize("spoil", [cut, alter])
def test_a_damaged_image_is_imported_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    source = bring(tmp_path / "mine")
    made = import_vm_base(tmp_path, source, name="mine")
    spoil(made.initrd)
    assert import_vm_base(tmp_path, source, name="mine") == made
    assert made.initrd.read_bytes() == b"initrd" and not find_damage(made.directory, digests=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", [cut, alter])
def test_a_build_finds_a_damaged_image_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(build, "check_host", lambda *_, **__: None)
    made = import_vm_base(tmp_path, bring(tmp_path / "mine"), name="default")
    monkeypatch.setattr(build, "recipe_hash", lambda *_, **__: made.key)
    said: list[str] = []

    def built() -> VmBase:
        return build_vm_base(tmp_path, extra_files={}, progress=lambda step, _: said.append(step))

    def no_network(_: Path) -> None:
        raise Unavailable("there is no network")

    monkeypatch.setattr(build.debian, "open_apt", no_network)
    assert built() == made and not said
    spoil(made.directory / name)
    with pytest.raises(Unavailable):
        built()
    told, *others = said
    assert told.startswith(f"the utility VM default is damaged and is built anew: {name} ")
    assert others == ["reading the package index"]
