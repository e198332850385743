"""A directory of finished builds, each named by the hash of its inputs.

<results>/<key>/          finished; appears by one rename
<results>/current         symbolic link to the newest; others beside it where builds have names
<results>/.building-*/    a build under way; swept by the next one
<results>/.lock           held while one builds
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

_KEY = re.compile(r"[0-9a-f]{64}")


@contextmanager
def only_builder(results: Path) -> Iterator[None]:
    """One build at a time in this directory; the next one waits."""
    results.mkdir(parents=True, exist_ok=True)
    with open(results / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def building(results: Path) -> Iterator[Path]:
    """A directory for a build, which does not outlive it; those of killed builds go first."""
    for abandoned in results.glob(".building-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=".building-", dir=results))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(work: Path, results: Path, key: str) -> None:
    """Make what was built in `work` the finished build `key`; a damaged one of that name goes."""
    finished = results / key
    if finished.exists():
        shutil.rmtree(finished)
    work.chmod(0o700)
    work.rename(finished)


def find_current_key(results: Path, link: str = "current") -> str | None:
    """The key that a link names, or None."""
    try:
        return str((results / link).readlink())
    except OSError:
        return None


def point_to(results: Path, key: str, link: str = "current") -> None:
    """Make a link name this build, at once."""
    temporary = results / ".current"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(key)
    temporary.replace(results / link)


def remove_unnamed(results: Path) -> None:
    """Remove finished builds that no link names. Directories whose names are no hashes belong to others."""
    entries = list(results.iterdir())
    named = {str(entry.readlink()) for entry in entries if entry.is_symlink()}
    for directory in entries:
        if _KEY.fullmatch(directory.name) and not directory.is_symlink() and directory.name not in named:
            shutil.rmtree(directory, ignore_errors=True)


def remove_unused(debs: Path, needed: Set[str]) -> None:
    """Remove packages that a build did not use."""
    for deb in debs.glob("*.deb"):
        if deb.name not in needed:
            deb.unlink()
