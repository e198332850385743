"""The root of a utility VM: packages unpacked, the names that a merged /usr needs, Python compiled, packed as EROFS.

    bin lib lib64 sbin       links into usr
    usr/                     Python, crun, mkfs.ext4, busybox and their libraries
    silo/                    manifest, and the agent where extra files bring it

EROFS is neither compressed nor keeps small files inside inodes: only then can its pages be mapped as they are (DAX), so that
all VMs of a host run the same copy in the host's page cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from silo.debian.isolated import run_isolated
from silo.debian.packages import Package, PrivateApt, unpack
from silo.errors import HostError
from silo.host.run import run
from silo.isolation.vm.base.recipe import ACCOUNTS, APPLETS, EXCLUDED_FILES, PMEM_ALIGNMENT

MANIFEST_FILE = "/silo/manifest.json"
BUSYBOX = "usr/bin/busybox"
_COMPILE_LIMIT_S = 120
_MERGED = ("bin", "lib", "lib64", "sbin")
_DIRECTORIES = ("dev", "etc", "mnt", "proc", "root", "run", "silo", "sys", "tmp", "usr/bin", "usr/sbin", "var/tmp")


def make_tree(apt: PrivateApt, packages: Sequence[Package], root: Path) -> None:
    """Unpack all packages into the new directory `root` and add what they leave to others. Raises CommandFailed."""
    root.mkdir(mode=0o755)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        unpack(apt, package, root, exclude=EXCLUDED_FILES)
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name, text in ACCOUNTS.items():
        (root / "etc" / name).write_text(text, encoding="ascii")
    for name in APPLETS:
        place = root / "usr/bin" / name
        if not os.path.lexists(place):
            place.symlink_to("busybox")


def index_libraries(root: Path) -> None:
    """Give the dynamic linker its cache."""
    run(["ldconfig", "-X", "-r", root])
    cache = root / "var/cache/ldconfig/aux-cache"
    cache.unlink(missing_ok=True)


def compile_python(root: Path, places: Sequence[str]) -> None:
    """Compile Python's library and `places` (absolute paths in the root) with the root's own Python. Raises CommandFailed.

    Debian does this where the package is installed. "unchecked": all files get one time when they are packed, and a source that
    cannot change need not be looked at.
    """
    libraries = [f"/usr/lib/{path.name}" for path in sorted((root / "usr/lib").glob("python3.*"))]
    if len(libraries) != 1:
        raise HostError("the packages bring not one Python", details=", ".join(libraries))
    words = ["/usr/bin/python3", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    env = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    run_isolated(root, [*words, *libraries, *places], env=env, timeout_s=_COMPILE_LIMIT_S)


def erofs_arguments(image: Path, root: Path, *, epoch_s: int, uuid: str) -> list[str | Path]:
    """The command that packs `root`: every time is `epoch_s`, every owner is root, no extended attributes."""
    fixed = [f"-T{epoch_s}", f"-U{uuid}", "--all-root", "-x-1"]
    return ["mkfs.erofs", "-Enoinline_data", *fixed, "--quiet", image, root]


def pack(image: Path, root: Path, *, epoch_s: int, uuid: str) -> None:
    """Make the image, padded so that it can be memory of a VM. Raises ToolMissing, CommandFailed."""
    run(erofs_arguments(image, root, epoch_s=epoch_s, uuid=uuid))
    os.truncate(image, -(-image.stat().st_size // PMEM_ALIGNMENT) * PMEM_ALIGNMENT)
