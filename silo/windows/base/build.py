"""Build the Windows base image: from package names to an OCI layout.

    <data_root>/cache/apt, debs       kept between builds (silo/debian/packages.py)
    <data_root>/base/<key>/           a finished base; `current` names the newest
        layout/                       OCI layout, to be imported by the image store
        rootfs/                       the unpacked tree, if asked for
        manifest.json
    <data_root>/base/.building-*/     a build under way; swept by the next one

A base is named by its recipe (recipe.recipe_hash), so a finished one is reused. It appears by one rename: an interrupted
build leaves nothing but downloaded packages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from silo.debian import packages as debian
from silo.debian.inputs import Progress, check_host, check_places, hash_files, no_progress, place_files
from silo.debian.packages import Package, PrivateApt
from silo.debian.results import (
    building,
    find_current_key,
    only_builder,
    point_to,
    publish,
    remove_unnamed,
    remove_unused,
)
from silo.errors import HostError
from silo.windows.base import prefix, rootfs
from silo.windows.base.environment import DRIVE_C, MANIFEST_FILE, SILO_DIRECTORY
from silo.windows.base.manifest import BaseManifest, parse_manifest
from silo.windows.base.oci_layout import write_layout
from silo.windows.base.programs import build_programs
from silo.windows.base.recipe import CLOSED_PACKAGES, UNWANTED_PACKAGES, WINE_PACKAGES, recipe_hash
from silo.windows.base.tar_layer import write_layer

NEEDED_BYTES = 2_500_000_000
_TOOLS = {
    "apt-get": "apt",
    "bash": "bash",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "hostname": "hostname",
    "ldconfig": "libc-bin",
    "mount": "mount",
    "tar": "tar",
    "unshare": "util-linux",
}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A finished base. `rootfs` is None unless the tree was asked for; `reused` says that nothing had to be built."""

    key: str
    layout: Path
    rootfs: Path | None
    manifest: BaseManifest
    reused: bool


def find_base(data_root: Path, key: str) -> BaseImage | None:
    """A finished base by its key, or None."""
    directory = data_root / "base" / key
    try:
        manifest = parse_manifest((directory / "manifest.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not (directory / "layout/index.json").is_file():
        return None
    tree = directory / "rootfs"
    return BaseImage(key, directory / "layout", tree if tree.is_dir() else None, manifest, reused=True)


def _find_current_base(data_root: Path, digests: Mapping[str, str]) -> BaseImage | None:
    """The newest base, if this builder would make it again from the package versions that it has; needs no network."""
    key = find_current_key(data_root / "base")
    base = find_base(data_root, key) if key else None
    if base is None or base.key != recipe_hash(base.manifest.packages, digests):
        return None
    return base


def _make_tree(
    root: Path,
    apt: PrivateApt,
    resolved: list[Package],
    *,
    key: str,
    extra_files: Mapping[str, Path],
    digests: Mapping[str, str],
    progress: Progress,
) -> BaseManifest:
    """Make the complete tree at `root`."""
    epoch_s = max(debian.build_time_s(apt, package) for package in resolved)
    progress("unpacking packages", 0.2)
    rootfs.unpack_packages(apt, resolved, root)
    progress("slimming Wine", 0.4)
    rootfs.slim_wine(root)
    rootfs.write_accounts(root)
    rootfs.place_fonts(root)
    rootfs.finish(root)
    progress("starting Windows for the first time", 0.5)
    prefix.boot_prefix(root)
    progress("shaping the registry", 0.8)
    prefix.edit_registry(root, epoch_s=epoch_s, key=key)
    prefix.finish_drive(root)
    shared, _ = prefix.share_files(root)
    place_files(root, extra_files)
    files = sum(len(names) for _, _, names in os.walk(root)) + 1
    manifest = BaseManifest(key, epoch_s, tuple(resolved), digests, files=files, shared_files=shared)
    (root / MANIFEST_FILE.lstrip("/")).write_bytes(manifest.as_json())
    return manifest


def build_base(
    data_root: Path,
    *,
    extra_files: Mapping[str, Path] | None = None,
    keep_rootfs: bool = False,
    refresh: bool = False,
    progress: Progress = no_progress,
) -> BaseImage:
    """Build the base below `data_root`, or return the one that is there.

    `extra_files` maps absolute paths in the image to files of the host (such as the launcher). With `refresh` Debian is
    asked for newer packages first; without, a base made by this same builder is returned without any network. Blocks
    for about half a minute. Raises AccessDenied, ToolMissing, NoSpace, Unavailable (network), CommandFailed, HostError.
    """
    check_places(extra_files or {})
    check_host(data_root, what="the Windows base", tools=_TOOLS, needed_bytes=NEEDED_BYTES)
    extra_files = build_programs(data_root / "cache" / "programs") | dict(extra_files or {})
    digests = hash_files(extra_files)
    bases = data_root / "base"
    with only_builder(bases):
        found = None if refresh else _find_current_base(data_root, digests)
        if found is not None and (found.rootfs is not None or not keep_rootfs):
            return found
        progress("reading the package index", 0.0)
        apt = debian.open_apt(data_root / "cache")
        debian.update_index(apt)
        resolved = debian.resolve(apt, closed=CLOSED_PACKAGES, alone=WINE_PACKAGES, without=UNWANTED_PACKAGES)
        key = recipe_hash(resolved, digests)
        found = find_base(data_root, key)
        if found is not None and (found.rootfs is not None or not keep_rootfs):
            point_to(bases, key)
            return found
        progress("downloading packages", 0.05)
        debian.download(apt, resolved)
        with building(bases) as work:
            root = work / "rootfs"
            manifest = _make_tree(
                root, apt, resolved, key=key, extra_files=extra_files, digests=digests, progress=progress
            )
            progress("packing the layer", 0.85)
            _pack(work, manifest)
            if not keep_rootfs:
                shutil.rmtree(root)
            publish(work, bases, key)
        point_to(bases, key)
        # The image store has its own copy of what it imported.
        remove_unnamed(bases)
        remove_unused(apt.debs, {package.file for package in resolved})
        progress("done", 1.0)
    built = find_base(data_root, key)
    if built is None:
        raise HostError(f"the finished base {key[:12]} cannot be read back")
    return BaseImage(key, built.layout, built.rootfs, built.manifest, reused=False)


def _pack(work: Path, manifest: BaseManifest) -> None:
    """Make layout and manifest.json beside the tree."""
    layer_file = work / "layer.tar"
    with open(layer_file, "wb") as stream:
        layer = write_layer(work / "rootfs", stream, epoch_s=manifest.epoch_s, owner=prefix.owner_of)
    write_layout(work / "layout", layer_file, layer, manifest)
    (work / "manifest.json").write_bytes(manifest.as_json())


PLACES = {"launcher.exe": f"{DRIVE_C}/windows/system32/silo-launcher.exe", "start": f"{SILO_DIRECTORY}/start"}
"""Where the launcher and the first process of a container lie in the image."""
