"""The kernel of a utility VM: Debian's own, and of its four thousand modules those that a VM needs, in loading order.

Debian's package has no modules.dep (depmod makes it where the package is installed), so dependencies are read from the modules
themselves: the section .modinfo of each file names, NUL-terminated, `depends=a,b` and much else. That spares the host's kmod,
and only the files that are needed are unpacked. Aliases (`softdep=pre: crc32c`) are not followed: recipe.MODULES names what
answers them.

    <tree>/boot/vmlinuz-<release>
    <tree>/usr/lib/modules/<release>/modules.builtin    paths of what is in vmlinuz
    <tree>/usr/lib/modules/<release>/kernel/…/x.ko.xz
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import HostError

_MODULES = "usr/lib/modules"
# ELF64, little endian: e_shoff, then e_shentsize e_shnum e_shstrndx; a section header's sh_name, sh_offset, sh_size.
_ELF_MAGIC = b"\x7fELF\x02\x01"
_SECTIONS_AT = 0x28
_SECTION_COUNTS_AT = 0x3A


@dataclass(frozen=True, slots=True)
class Module:
    """One kernel module; `name` has underscores, as the kernel says it."""

    name: str
    data: bytes


def parse_depends(text: str) -> list[str]:
    """The names in a package's field `Depends`, versions and alternatives left out."""
    return [row.split("(")[0].split("|")[0].strip() for row in text.split(",") if row.strip()]


def image_package(package: str, depends: str) -> str:
    """The package with the kernel proper: what `package` depends on (as linux-image-amd64 does), or itself. Raises HostError."""
    names = [name for name in parse_depends(depends) if name.startswith("linux-image-")]
    if len(names) == 1:
        return names[0]
    if not names and package.removeprefix("linux-image-")[:1].isdigit():
        return package
    raise HostError(f"{package} names no kernel", details=depends)


def canonical(name: str) -> str:
    """A module's name: files are called virtio-rng.ko where the kernel says virtio_rng."""
    return name.split(".")[0].replace("-", "_")


def module_info(data: bytes) -> dict[str, list[str]]:
    """What a module says of itself: values by key. Raises HostError for what is no module."""
    try:
        if not data.startswith(_ELF_MAGIC):
            raise HostError("a kernel module is not an ELF file of x86-64")
        (table,) = struct.unpack_from("<Q", data, _SECTIONS_AT)
        entry_bytes, count, names_index = struct.unpack_from("<HHH", data, _SECTION_COUNTS_AT)
        sections = []
        for number in range(count):
            name, _, _, _, offset, size = struct.unpack_from("<IIQQQQ", data, table + number * entry_bytes)
            sections.append((name, offset, size))
        names_at = sections[names_index][1]
        for name, offset, size in sections:
            start = names_at + name
            if data[start : data.index(b"\0", start)] == b".modinfo":
                return _parse_info(data[offset : offset + size])
    except (struct.error, IndexError, ValueError) as error:
        raise HostError("a kernel module is damaged", details=str(error)) from error
    raise HostError("a kernel module does not say what it is (it has no section .modinfo)")


def _parse_info(section: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in section.decode(errors="replace").split("\0"):
        key, separator, value = row.partition("=")
        if separator:
            found.setdefault(key, []).append(value)
    return found


def depends_of(data: bytes) -> list[str]:
    """The modules that this one must find loaded, as it names them."""
    return [canonical(name) for row in module_info(data).get("depends", []) for name in row.split(",") if name]


def loading_order(wanted: Iterable[str], depends: Callable[[str], Sequence[str]]) -> list[str]:
    """`wanted` and all that they depend on, each after its own. Raises HostError for a circle."""
    order: list[str] = []
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in open_names:
            raise HostError("kernel modules depend on one another", details=" → ".join([*open_names, name]))
        open_names.append(name)
        for other in depends(name):
            visit(other)
        open_names.pop()
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def parse_builtin(text: str) -> set[str]:
    """The names in modules.builtin (`kernel/drivers/virtio/virtio_pci.ko` a line)."""
    return {canonical(line.rsplit("/", 1)[-1]) for line in text.splitlines() if line}


class KernelTree:
    """The unpacked package below `tree`. Raises HostError if it is not as Debian 13 has it."""

    def __init__(self, tree: Path) -> None:
        images = sorted((tree / "boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise HostError("the kernel's package has no kernel in boot/", details=", ".join(map(str, images)))
        self.image = images[0]
        self.release = self.image.name.removeprefix("vmlinuz-")
        self._directory = tree / _MODULES / self.release
        self._files = {canonical(path.name): path for path in (self._directory / "kernel").rglob("*.ko*")}
        try:
            self._builtin = parse_builtin((self._directory / "modules.builtin").read_text(encoding="utf-8"))
        except OSError as error:
            raise HostError("the kernel's package does not list what is built in", details=str(error)) from error

    def modules(self, wanted: Iterable[str]) -> list[Module]:
        """The wanted modules and what they need, in loading order, without what the kernel has built in."""
        read: dict[str, bytes] = {}

        def depends(name: str) -> list[str]:
            read[name] = self._read(name)
            return self._not_builtin(depends_of(read[name]))

        order = loading_order(self._not_builtin(map(canonical, wanted)), depends)
        return [Module(name, read[name]) for name in order]

    def _not_builtin(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._builtin]

    def _read(self, name: str) -> bytes:
        path = self._files.get(name)
        if path is None:
            raise HostError(f"Linux {self.release} has no module {name}")
        data = path.read_bytes()
        if path.suffix == ".ko":
            return data
        if path.suffix != ".xz":
            raise HostError(f"the kernel module {path.name} is compressed in a way that is not known here")
        return lzma.decompress(data)
