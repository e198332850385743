"""The images of utility VMs that are there, by name; and a user's own, imported.

    <data_root>/vm/<key>/              a finished image
        vmlinuz
        initrd.img
        root.erofs
        manifest.json                  what it was made from, and what its files are (damage.py)
    <data_root>/vm/current             symbolic link to the image named `default`
    <data_root>/vm/current-<name>      and to the others; several names may stand for one image
    <data_root>/vm/.building-*/        a build under way; swept by the next one

An image goes when no name stands for it any more: VMs that run from it hold its files open, but a template that was saved from
it cannot be cloned any more.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from silo.debian.results import building, find_current_key, only_builder, point_to, publish, remove_unnamed
from silo.errors import HostError, InvalidRequest, NoSpace
from silo.isolation.vm.base.damage import INITRD, KERNEL, MANIFEST, ROOT, describe_files, find_damage
from silo.isolation.vm.base.manifest import VmManifest, parse_manifest
from silo.isolation.vm.base.recipe import PMEM_ALIGNMENT
from silo.model.vm_image import DEFAULT_VM_IMAGE, VM_NAME_PATTERN, VmImage

_LINK = "current"
_MAXIMUM_BOOT_BYTES = 1 << 30
# The x86 boot protocol (Documentation/arch/x86/boot.rst): magic, and where the version's text lies less 0x200.
_BOOT_MAGIC_AT, _BOOT_MAGIC = 0x202, b"HdrS"
_VERSION_POINTER_AT, _VERSION_BASE = 0x20E, 0x200
_ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class VmBase:
    """A finished image; `reused` says that nothing had to be built."""

    key: str
    directory: Path
    manifest: VmManifest
    reused: bool

    @property
    def kernel(self) -> Path:
        return self.directory / KERNEL

    @property
    def initrd(self) -> Path:
        return self.directory / INITRD

    @property
    def root(self) -> Path:
        return self.directory / ROOT


def link_of(name: str) -> str:
    """The link that stands for a name. Raises InvalidRequest."""
    if not VM_NAME_PATTERN.fullmatch(name):
        raise InvalidRequest(f"invalid name of a utility VM: {name!r}", hint="a-z, 0-9, _ . -; 64 characters at most")
    return _LINK if name == DEFAULT_VM_IMAGE else f"{_LINK}-{name}"


def find_vm_base(data_root: Path, key: str, *, digests: bool = False) -> VmBase | None:
    """A finished image by its key, or None, also for a damaged one (with `digests`: that is told by them)."""
    directory = data_root / "vm" / key
    manifest = _load_manifest(directory)
    if manifest is None or find_damage(directory, digests=digests):
        return None
    return VmBase(key, directory, manifest, reused=True)


def _load_manifest(directory: Path) -> VmManifest | None:
    try:
        return parse_manifest((directory / MANIFEST).read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_named(data_root: Path, name: str) -> VmBase | None:
    """The image that a name stands for, whatever it was made from; None if there is none, or it is damaged.

    Raises InvalidRequest.
    """
    key = find_current_key(data_root / "vm", link_of(name))
    return find_vm_base(data_root, key) if key else None


def find_damage_of(data_root: Path, name: str, *, digests: bool = False) -> str:
    """What is wrong with the image that a name stands for; empty for nothing, also where there is none.

    Raises InvalidRequest.
    """
    key = find_current_key(data_root / "vm", link_of(name))
    directory = data_root / "vm" / (key or "none")
    return find_damage(directory, digests=digests) if directory.is_dir() else ""


def check_named(data_root: Path, name: str) -> None:
    """Raises HostError for a damaged image, with what to do; InvalidRequest."""
    damage = find_damage_of(data_root, name)
    if not damage:
        return
    manifest = _load_manifest(data_root / "vm" / link_of(name))
    words = "" if name == DEFAULT_VM_IMAGE else f" --name {name}"
    own = manifest is not None and not manifest.packages
    hint = f"silo base {'import vm DIRECTORY' if own else 'build vm'}{words}"
    raise HostError(f"the utility VM {name} is damaged", details=damage, hint=hint)


def find_all(data_root: Path) -> dict[str, VmBase]:
    """Every image by each of its names; `default` first, then by the alphabet."""
    links = sorted(path.name for path in (data_root / "vm").glob(f"{_LINK}*"))
    names = [link.removeprefix(_LINK).removeprefix("-") or DEFAULT_VM_IMAGE for link in links]
    found = ((name, find_named(data_root, name)) for name in names if VM_NAME_PATTERN.fullmatch(name))
    return {name: base for name, base in found if base is not None}


def describe(base: VmBase, name: str) -> VmImage:
    """The image as the rest of the engine sees it."""
    return VmImage(
        id=base.key,
        name=name,
        directory=base.directory,
        kernel_release=base.manifest.kernel_release,
        created_s=base.manifest.epoch_s,
        size_bytes=sum(path.stat().st_size for path in (base.kernel, base.initrd, base.root)),
    )


def remove_named(data_root: Path, name: str) -> bool:
    """Take a name away, and its image if that has no other; False if the name stands for nothing. Raises InvalidRequest."""
    images = data_root / "vm"
    link = images / link_of(name)
    with only_builder(images):
        if not link.is_symlink():
            return False
        link.unlink()
        remove_unnamed(images)
    return True


def import_vm_base(data_root: Path, directory: Path, *, name: str) -> VmBase:
    """Copy a user's image (`vmlinuz`, `initrd.img`, `root.erofs`) and let `name` stand for it.

    Raises InvalidRequest for what cannot be an image, HostError, NoSpace.
    """
    link, images = link_of(name), data_root / "vm"
    with only_builder(images), building(images) as work:
        digest, newest_s = hashlib.sha256(), 0.0
        for file in (KERNEL, INITRD, ROOT):
            content, changed_s = _copy(directory / file, work / file)
            digest.update(content)
            newest_s = max(newest_s, changed_s)
        key = digest.hexdigest()
        if find_vm_base(data_root, key, digests=True) is None:
            release = kernel_release((work / KERNEL).read_bytes())
            manifest = VmManifest(key, int(newest_s), release, (), (), {}, files=describe_files(work))
            (work / MANIFEST).write_bytes(manifest.as_json())
            publish(work, images, key)
        point_to(images, key, link)
        remove_unnamed(images)
    found = find_vm_base(data_root, key)
    if found is None:
        raise HostError(f"the imported utility VM {key[:12]} cannot be read back")
    return found


def _copy(untrusted_source: Path, target: Path) -> tuple[bytes, float]:
    """(SHA-256, time of change) of a file that has been looked at and copied; a link there leads nowhere."""
    try:
        descriptor = os.open(untrusted_source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {untrusted_source}", details=error.strerror or "", hint=f"{KERNEL}, {INITRD} and {ROOT}"
        ) from error
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        _check_file(untrusted_source, status)
        if shutil.disk_usage(target.parent).free < status.st_size:
            raise NoSpace(f"there is no space for {untrusted_source} below {target.parent.parent}")
        with open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            if copy.tell() != status.st_size:
                raise InvalidRequest(f"{untrusted_source} changes while it is copied")
    with open(target, "rb") as copied:
        return hashlib.file_digest(copied, "sha256").digest(), status.st_mtime


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"{path} is not a regular file")
    if not status.st_size:
        raise InvalidRequest(f"{path} is empty")
    if path.name == ROOT:
        if status.st_size % PMEM_ALIGNMENT:
            raise InvalidRequest(
                f"the size of {path} is not a multiple of {PMEM_ALIGNMENT >> 20} MiB",
                hint=f"truncate -s %{PMEM_ALIGNMENT >> 20}M {path}",
            )
    elif status.st_size > _MAXIMUM_BOOT_BYTES:
        raise InvalidRequest(f"{path} is larger than {_MAXIMUM_BOOT_BYTES >> 30} GiB: it is loaded into memory")


def kernel_release(image: bytes) -> str:
    """What a bzImage says of its version, such as `6.12.1-amd64`; "unknown" for an ELF kernel. Raises InvalidRequest."""
    if image.startswith(_ELF_MAGIC):
        return "unknown"
    if image[_BOOT_MAGIC_AT : _BOOT_MAGIC_AT + len(_BOOT_MAGIC)] != _BOOT_MAGIC:
        raise InvalidRequest(f"{KERNEL} is no Linux kernel", hint="a bzImage, as in /boot")
    (pointer,) = struct.unpack_from("<H", image, _VERSION_POINTER_AT)
    text = image[pointer + _VERSION_BASE :][:256].split(b"\0")[0].decode("ascii", "replace") if pointer else ""
    words = text.split()
    return words[0] if words and words[0].isprintable() else "unknown"
