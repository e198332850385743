"""Images of utility VMs by name, and those that a user brings."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.isolation.vm.base import images
from silo.isolation.vm.base.build import build_vm_base
from silo.isolation.vm.base.images import find_all, find_named, import_vm_base, kernel_release, remove_named

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
