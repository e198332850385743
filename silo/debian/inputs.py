"""What every build asks first: can it succeed on this host, and what exactly goes into it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from silo.errors import AccessDenied, InvalidRequest, NoSpace, ToolMissing

Progress = Callable[[str, float], None]
"""Called with what is being done now and the fraction (0 to 1) done before it."""

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def no_progress(step: str, fraction: float) -> None:
    """A Progress for callers who do not look."""
    del step, fraction


def check_host(data_root: Path, *, what: str, tools: Mapping[str, str], needed_bytes: int) -> None:
    """Raises AccessDenied, ToolMissing or NoSpace if a build of `what` cannot succeed; `tools` maps programs to packages."""
    if os.geteuid() != 0:
        raise AccessDenied(f"building {what} needs root", hint="run it with sudo")
    for tool, package in tools.items():
        if shutil.which(tool, path=_SEARCH_PATH) is None:
            raise ToolMissing(tool, package)
    data_root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_root).free
    if free < needed_bytes:
        raise NoSpace(
            f"building {what} needs {needed_bytes / 1e9:.1f} GB free below {data_root}",
            details=f"{free / 1e9:.1f} GB are free",
            hint="free some space or set data_root to a larger disk",
        )


def check_places(extra_files: Mapping[str, Path]) -> None:
    """Raises InvalidRequest for a path in the image that is not plain and absolute."""
    for target in extra_files:
        if not target.startswith("/") or any(part in ("", ".", "..") for part in target[1:].split("/")):
            raise InvalidRequest(f"{target!r} is not an absolute path in the image")


def hash_files(extra_files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 by path in the image."""
    digests = {}
    for target, source in extra_files.items():
        with open(source, "rb") as stream:
            digests[target] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def place_files(root: Path, extra_files: Mapping[str, Path]) -> None:
    """Copy files of the host to their absolute paths in the tree at `root`, executable."""
    for target, source in extra_files.items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        # What is there may be a hard link to a file that stays.
        place.unlink(missing_ok=True)
        shutil.copyfile(source, place)
        place.chmod(0o755)
