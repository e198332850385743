"""Build an image of utility VMs: from package names to a kernel, an initrd and a root.

    <data_root>/cache/vm/apt, debs     kept between builds (silo/debian/packages.py)
    <data_root>/vm/<key>/              a finished image (images.py)
        vmlinuz
        initrd.img                     busybox, kernel modules, init.sh (initrd.py)
        root.erofs                     the root, for virtio-pmem with DAX or virtio-blk (rootfs.py)
        manifest.json

An image's key is the hash of its recipe (recipe.recipe_hash), so a finished one is reused, unless it is not what was built any
more (damage.py). It appears by one rename: an interrupted build leaves nothing but downloaded packages. What the same name stood
for before goes then. Packages have a cache of their own, because each builder removes from its cache what it no longer uses, and
both may build at the same time.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from silo.debian import packages as debian
from silo.debian.inputs import Progress, check_host, check_places, hash_files, no_progress, place_files
from silo.debian.packages import Package, PrivateApt
from silo.debian.results import building, only_builder, point_to, publish, remove_unnamed, remove_unused
from silo.errors import HostError, InvalidRequest
from silo.isolation.vm.base import kernel, rootfs
from silo.isolation.vm.base.cpio import write_cpio
from silo.isolation.vm.base.damage import INITRD, KERNEL, MANIFEST, ROOT, describe_files
from silo.isolation.vm.base.images import VmBase, find_damage_of, find_named, find_vm_base, link_of
from silo.isolation.vm.base.initrd import INIT, initrd_entries
from silo.isolation.vm.base.manifest import VmManifest
from silo.isolation.vm.base.recipe import (
    CLOSED_PACKAGES,
    EXCLUDED_FILES,
    KERNEL_PACKAGE,
    LONE_PACKAGES,
    MODULES,
    UNWANTED_PACKAGES,
    recipe_hash,
)
from silo.model.vm_image import DEFAULT_VM_IMAGE

NEEDED_BYTES = 600_000_000
_KERNEL_PACKAGES = re.compile(r"linux-image-[a-z0-9][a-z0-9.+-]*")
_TOOLS = {
    "apt-get": "apt",
    "bash": "bash",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "hostname": "hostname",
    "ldconfig": "libc-bin",
    "mkfs.erofs": "erofs-utils",
    "mount": "mount",
    "tar": "tar",
    "unshare": "util-linux",
}


def _find_current(
    data_root: Path, digests: Mapping[str, str], init: bytes, *, name: str = DEFAULT_VM_IMAGE, kernel_package: str
) -> VmBase | None:
    """The named image, if this builder would make it again from the package versions that it has; needs no network."""
    found = find_named(data_root, name)
    if found is None or found.manifest.kernel_package != kernel_package:
        return None
    again = recipe_hash(found.manifest.packages, digests, init=init, kernel=kernel_package)
    return found if found.key == again else None


def _resolve(apt: PrivateApt, kernel_package: str) -> tuple[list[Package], str]:
    """All packages, and the name of the one with the kernel."""
    image = kernel.image_package(kernel_package, debian.show_field(apt, kernel_package, "Depends"))
    unwanted = {*UNWANTED_PACKAGES, kernel_package} - {image}
    packages = debian.resolve(apt, closed=CLOSED_PACKAGES, alone=(*LONE_PACKAGES, image), without=sorted(unwanted))
    return packages, image


def _make(
    work: Path,
    apt: PrivateApt,
    packages: list[Package],
    *,
    image: str,
    kernel_package: str,
    key: str,
    init: bytes,
    extra_files: Mapping[str, Path],
    digests: Mapping[str, str],
    progress: Progress,
) -> None:
    """Make the four files in `work`, and leave nothing else there."""
    epoch_s = max(debian.build_time_s(apt, package) for package in packages)
    progress("unpacking the kernel", 0.3)
    kernel_tree, root = work / "kernel", work / "root"
    kernel_tree.mkdir()
    for package in packages:
        if package.name == image:
            debian.unpack(apt, package, kernel_tree, exclude=EXCLUDED_FILES)
    linux = kernel.KernelTree(kernel_tree)
    modules = linux.modules(MODULES)
    shutil.copyfile(linux.image, work / KERNEL)
    shutil.rmtree(kernel_tree)
    progress("unpacking packages", 0.5)
    rootfs.make_tree(apt, [package for package in packages if package.name != image], root)
    rootfs.index_libraries(root)
    place_files(root, extra_files)
    progress("compiling Python", 0.6)
    rootfs.compile_python(root, ["/silo"])
    manifest = VmManifest(
        key, epoch_s, linux.release, tuple(packages), tuple(module.name for module in modules), digests, kernel_package
    )
    (root / rootfs.MANIFEST_FILE.lstrip("/")).write_bytes(manifest.as_json())
    progress("packing", 0.9)
    with open(work / INITRD, "wb") as stream:
        busybox = (root / rootfs.BUSYBOX).read_bytes()
        write_cpio(stream, initrd_entries(init, busybox, modules), time_s=epoch_s)
    rootfs.pack(work / ROOT, root, epoch_s=epoch_s, uuid=str(uuid.UUID(key[:32])))
    shutil.rmtree(root)
    complete = dataclasses.replace(manifest, files=describe_files(work))
    (work / MANIFEST).write_bytes(complete.as_json())


def build_vm_base(
    data_root: Path,
    *,
    extra_files: Mapping[str, Path],
    name: str = DEFAULT_VM_IMAGE,
    kernel_package: str = KERNEL_PACKAGE,
    refresh: bool = False,
    progress: Progress = no_progress,
) -> VmBase:
    """Build the image `name` below `data_root` with a kernel of Debian's, or return the one that is there.

    `extra_files` maps absolute paths in the root to files of the host (such as the agent). With `refresh` Debian is asked for
    newer packages first; without, an image made by this same builder is returned without any network. One that is damaged is
    made anew, and `progress` hears so. Blocks for about half a minute. Raises InvalidRequest, AccessDenied, ToolMissing, NoSpace,
    Unavailable (network), CommandFailed, HostError.
    """
    check_places(extra_files)
    link = link_of(name)
    if not _KERNEL_PACKAGES.fullmatch(kernel_package):
        raise InvalidRequest(f"{kernel_package!r} is no kernel of Debian's", hint=f"such as {KERNEL_PACKAGE}")
    check_host(data_root, what="the utility VM", tools=_TOOLS, needed_bytes=NEEDED_BYTES)
    digests = hash_files(extra_files)
    init = INIT.read_bytes()
    images = data_root / "vm"
    with only_builder(images):
        damage = find_damage_of(data_root, name, digests=True)
        if damage:
            progress(f"the utility VM {name} is damaged and is built anew: {damage}", 0.0)
        found = (
            None
            if refresh or damage
            else _find_current(data_root, digests, init, name=name, kernel_package=kernel_package)
        )
        if found is not None:
            return found
        progress("reading the package index", 0.0)
        apt = debian.open_apt(data_root / "cache/vm")
        debian.update_index(apt)
        packages, image = _resolve(apt, kernel_package)
        key = recipe_hash(packages, digests, init=init, kernel=kernel_package)
        found = find_vm_base(data_root, key, digests=True)
        if found is not None:
            point_to(images, key, link)
            remove_unnamed(images)
            return found
        progress("downloading packages", 0.1)
        debian.download(apt, packages)
        with building(images) as work:
            _make(
                work,
                apt,
                packages,
                image=image,
                kernel_package=kernel_package,
                key=key,
                init=init,
                extra_files=extra_files,
                digests=digests,
                progress=progress,
            )
            publish(work, images, key)
        point_to(images, key, link)
        remove_unnamed(images)
        remove_unused(apt.debs, {package.file for package in packages})
        progress("done", 1.0)
    built = find_vm_base(data_root, key)
    if built is None:
        raise HostError(f"the finished utility VM {key[:12]} cannot be read back")
    return VmBase(key, built.directory, built.manifest, reused=False)
