"""Build the Windows base image: from package names to an OCI layout.

    <data_root>/cache/apt, debs       kept between builds (packages.py)
    <data_root>/base/<key>/           a finished base; `current` names the newest
        layout/                       OCI layout, to be imported by the image store
        rootfs/                       the unpacked tree, if asked for
        manifest.json
    <data_root>/base/.building-*/     a build under way; swept by the next one

A base is named by its recipe (recipe.recipe_hash), so a finished one is reused. It appears by one rename: an interrupted
build leaves nothing but downloaded packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo.errors import AccessDenied, HostError, InvalidRequest, NoSpace, ToolMissing
from silo.windows.base import packages as debian
from silo.windows.base import prefix, rootfs
from silo.windows.base.environment import DRIVE_C, MANIFEST_FILE, SILO_DIRECTORY
from silo.windows.base.manifest import BaseManifest, parse_manifest
from silo.windows.base.oci_layout import write_layout
from silo.windows.base.packages import Package, PrivateApt
from silo.windows.base.programs import build_programs
from silo.windows.base.recipe import CLOSED_PACKAGES, UNWANTED_PACKAGES, WINE_PACKAGES, recipe_hash
from silo.windows.base.tar_layer import write_layer

Progress = Callable[[str, float], None]
"""Called with what is being done now and the fraction (0 to 1) done before it."""

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
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A finished base. `rootfs` is None unless the tree was asked for; `reused` says that nothing had to be built."""

    key: str
    layout: Path
    rootfs: Path | None
    manifest: BaseManifest
    reused: bool


def _no_progress(step: str, fraction: float) -> None:
    del step, fraction


def check_host(data_root: Path) -> None:
    """Raises AccessDenied, ToolMissing or NoSpace if a build cannot succeed here."""
    if os.geteuid() != 0:
        raise AccessDenied("building the Windows base needs root", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=_SEARCH_PATH) is None:
            raise ToolMissing(tool, package)
    data_root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_root).free
    if free < NEEDED_BYTES:
        raise NoSpace(
            f"building the Windows base needs {NEEDED_BYTES / 1e9:.1f} GB free below {data_root}",
            details=f"{free / 1e9:.1f} GB are free",
            hint="free some space or set data_root to a larger disk",
        )


def _check_places(extra_files: Mapping[str, Path]) -> None:
    """Raises InvalidRequest for a path in the image that is not plain and absolute."""
    for target in extra_files:
        if not target.startswith("/") or any(part in ("", ".", "..") for part in target[1:].split("/")):
            raise InvalidRequest(f"{target!r} is not an absolute path in the image")


def _hash_extra_files(extra_files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 by path in the image."""
    digests = {}
    for target, source in extra_files.items():
        with open(source, "rb") as stream:
            digests[target] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


@contextmanager
def _only_builder(bases: Path) -> Iterator[None]:
    """One build at a time for a data_root; the next one waits."""
    bases.mkdir(parents=True, exist_ok=True)
    with open(bases / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _building(bases: Path) -> Iterator[Path]:
    """A directory for a build, which does not outlive it; those of killed builds go first."""
    for abandoned in bases.glob(".building-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=".building-", dir=bases))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
    try:
        key = str((data_root / "base" / "current").readlink())
    except OSError:
        return None
    base = find_base(data_root, key)
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
    for target, source in extra_files.items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        # What is there may be a hard link to a file of Wine's own, which stays.
        place.unlink(missing_ok=True)
        shutil.copyfile(source, place)
        place.chmod(0o755)
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
    progress: Progress = _no_progress,
) -> BaseImage:
    """Build the base below `data_root`, or return the one that is there.

    `extra_files` maps absolute paths in the image to files of the host (such as the launcher). With `refresh` Debian is
    asked for newer packages first; without, a base made by this same builder is returned without any network. Blocks
    for about half a minute. Raises AccessDenied, ToolMissing, NoSpace, Unavailable (network), CommandFailed, HostError.
    """
    _check_places(extra_files or {})
    check_host(data_root)
    extra_files = build_programs(data_root / "cache" / "programs") | dict(extra_files or {})
    digests = _hash_extra_files(extra_files)
    bases = data_root / "base"
    with _only_builder(bases):
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
            _point_to(bases, key)
            return found
        progress("downloading packages", 0.05)
        debian.download(apt, resolved)
        with _building(bases) as work:
            root = work / "rootfs"
            manifest = _make_tree(
                root, apt, resolved, key=key, extra_files=extra_files, digests=digests, progress=progress
            )
            progress("packing the layer", 0.85)
            _pack(work, manifest)
            if not keep_rootfs:
                shutil.rmtree(root)
            finished = bases / key
            if finished.exists():
                shutil.rmtree(finished)
            work.chmod(0o700)
            work.rename(finished)
        _point_to(bases, key)
        _remove_outdated(bases, key, apt.debs, {package.file for package in resolved})
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


def _remove_outdated(bases: Path, key: str, debs: Path, needed: Set[str]) -> None:
    """Remove other bases (the image store has its own copy of what it imported) and packages that this one did not use."""
    for directory in bases.iterdir():
        if directory.is_dir() and not directory.is_symlink() and directory.name != key:
            shutil.rmtree(directory, ignore_errors=True)
    for deb in debs.glob("*.deb"):
        if deb.name not in needed:
            deb.unlink()


def _point_to(bases: Path, key: str) -> None:
    """Make `current` name this base, at once."""
    temporary = bases / ".current"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(key)
    temporary.replace(bases / "current")


PLACES = {"launcher.exe": f"{DRIVE_C}/windows/system32/silo-launcher.exe", "start": f"{SILO_DIRECTORY}/start"}
"""Where the launcher and the first process of a container lie in the image."""
