"""Where `C:\\` lies in a Windows container's Linux root, and how names without case find their true spelling. Pure.

`C:\\` is case-insensitive and case-preserving over all layers: a path as somebody typed it has to land on the directory that
is there already. The base image is built to the same place (silo/windows/base/environment.py; a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from silo.model.windows_names import fold

PREFIX = "/silo/prefix"
DRIVE_C = "/silo/prefix/drive_c"
REGISTRY_FILES = ("system.reg", "user.reg", "userdef.reg")
USER_REGISTRY_DIRECTORY = "/silo/users"
"""`<user>/user.reg` replaces PREFIX/user.reg where a container runs as that user."""

Lister = Callable[[str], Iterable[str]]
"""The names in a directory, given by its path; none if it is not a directory."""


def is_on_drive(path: str) -> bool:
    """Whether a POSIX path of a container is `C:\\` or beneath it."""
    return path == DRIVE_C or path.startswith(DRIVE_C + "/")


def resolve_case(path: str, names: Lister) -> str:
    """The path with every component beneath `C:\\` spelled as on the disk; what does not exist stays as typed.

    An exact match wins over others; among several that differ in case only, the first in order does, so that the answer is
    always the same. Paths elsewhere are not changed.
    """
    if not is_on_drive(path):
        return path
    resolved = DRIVE_C
    missing = False
    for part in path[len(DRIVE_C) :].strip("/").split("/"):
        if part and not missing:
            found = _match(part, names(resolved))
            missing = found is None
            part = found or part
        if part:
            resolved += f"/{part}"
    return resolved


def _match(part: str, names: Iterable[str]) -> str | None:
    folded = fold(part)
    matches = sorted(name for name in names if fold(name) == folded)
    return part if part in matches else next(iter(matches), None)


def windows_path(path: str) -> str | None:
    """A POSIX path of a container in Windows' words (`C:\\data`); None when it is not on a drive."""
    if not is_on_drive(path):
        return None
    return "C:\\" + path[len(DRIVE_C) :].strip("/").replace("/", "\\")
