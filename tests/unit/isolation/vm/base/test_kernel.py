"""Kernel modules: what a file says of itself, and the order in which a set of them loads."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from silo.errors import HostError
from silo.isolation.vm.base import kernel


def module_file(**info: str) -> bytes:
    """An ELF file with the three sections that matter: the empty first, .modinfo, names."""
    text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in info.items())
    names = b"\0.modinfo\0.shstrtab\0"
    body = text + names
    table = 64 + len(body)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x28, table)
    struct.pack_into("<HHH", header, 0x3A, 64, 3, 2)
    sections = b""
    for name, offset, size in ((0, 0, 0), (1, 64, len(text)), (10, 64 + len(text), len(names))):
        sections += struct.pack("<IIQQQQ", name, 0, 0, 0, offset, size).ljust(64, b"\0")
    return bytes(header) + body + sections


def tree(root: Path, modules: dict[str, bytes], builtin: str = "") -> Path:
    directory = root / "usr/lib/modules/6.12.1-test"
    for name, data in modules.items():
        path = directory / "kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    (directory / "modules.builtin").write_text(builtin)
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6.12.1-test").write_bytes(b"kernel")
    return root


def test_module_says_what_it_needs() -> None:
    data = module_file(license="GPL", depends="jbd2,mb-cache", name="ext4")
    assert kernel.depends_of(data) == ["jbd2", "mb_cache"]
    assert kernel.module_info(data)["license"] == ["GPL"]
    assert kernel.depends_of(module_file(depends="")) == []


@pytest.mark.parametrize("data", [b"", b"text", module_file(depends="")[:80], b"\x7fELF\x02\x01".ljust(64, b"\0")])
def test_what_is_no_module_is_refused(data: bytes) -> None:
    with pytest.raises(HostError):
        kernel.module_info(data)


def test_each_module_comes_after_what_it_needs() -> None:
    needs = {"ext4": ["jbd2", "mbcache"], "jbd2": ["crc"], "mbcache": [], "crc": [], "erofs": ["crc"]}
    assert kernel.loading_order(["erofs", "ext4"], needs.__getitem__) == ["crc", "erofs", "jbd2", "mbcache", "ext4"]
    with pytest.raises(HostError, match="one another"):
        kernel.loading_order(["a"], {"a": ["b"], "b": ["a"]}.__getitem__)


def test_modules_are_found_by_either_spelling_and_builtin_ones_left_out(tmp_path: Path) -> None:
    modules = {
        "drivers/char/virtio-rng.ko.xz": module_file(depends="rng-core,virtio"),
        "drivers/char/rng-core.ko": module_file(depends=""),
    }
    linux = kernel.KernelTree(tree(tmp_path, modules, "kernel/drivers/virtio/virtio.ko\nkernel/fs/fuse/fuse.ko\n"))
    assert linux.release == "6.12.1-test"
    found = linux.modules(["fuse", "virtio_rng"])
    assert [module.name for module in found] == ["rng_core", "virtio_rng"]
    assert found[1].data == modules["drivers/char/virtio-rng.ko.xz"]
    with pytest.raises(HostError, match="no module absent"):
        linux.modules(["absent"])


def test_a_package_without_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no kernel"):
        kernel.KernelTree(tmp_path)


def test_the_real_kernel_is_named_by_the_meta_package() -> None:
    name = "linux-image-6.12.117+deb13-amd64"
    assert kernel.image_package("linux-image-amd64", f"{name} (= 6.12.117-1), linux-base | other") == name
    assert kernel.image_package(name, "kmod, linux-base (>= 4.3)") == name
    for package in ("linux-image-amd64", "linux-base"):
        with pytest.raises(HostError, match=f"{package} names no kernel"):
            kernel.image_package(package, "linux-base")
