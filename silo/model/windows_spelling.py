"""The true spelling of names on `C:\\` while an archive is extracted: directories are listed once, not for every entry."""

from __future__ import annotations

from collections.abc import Callable

from silo.model.windows_names import fold
from silo.model.windows_paths import DRIVE_C, Lister, is_on_drive

_KEPT_DIRECTORIES = 1000


class Spelling:
    """Names beneath a container's root, found without case. Paths are relative to the root.

    `names`: those in a directory; `exists`: whether something is at a path, the last component not followed.
    """

    def __init__(self, names: Lister, exists: Callable[[str], bool]) -> None:
        self._names = names
        self._exists = exists
        self._directories: dict[str, dict[str, str]] = {}

    def resolve(self, path: str) -> str:
        """Like silo.model.windows_paths.resolve_case, for a path relative to the root."""
        if not is_on_drive("/" + path):
            return path
        resolved = DRIVE_C[1:]
        for part in path[len(resolved) :].strip("/").split("/"):
            if part:
                resolved = f"{resolved}/{self._spelled(resolved, part)}"
        return resolved

    def note(self, path: str) -> None:
        """Something was made there, maybe with the directories it is in."""
        while path:
            directory, _, name = path.rpartition("/")
            if directory in self._directories:
                self._directories[directory].setdefault(fold(name), name)
            path = directory

    def _spelled(self, directory: str, name: str) -> str:
        known = self._directories.get(directory)
        if known is None:
            if len(self._directories) >= _KEPT_DIRECTORIES:
                self._directories.clear()
            known = {fold(found): found for found in sorted(self._names(directory), reverse=True)}
            self._directories[directory] = known
        found = known.get(fold(name), name)
        # an exact match wins, and what was removed meanwhile is no match
        exact = found == name or self._exists(f"{directory}/{name}")
        return name if exact or not self._exists(f"{directory}/{found}") else found


def entry_place(untrusted_name: str, directory: str) -> tuple[str, str]:
    """(directory, name in it) of an archive's entry: Docker's client on Unix leaves a Windows path in the name.

    `directory` is relative to the root, and so is the one that is answered; the name may still hold anything but a backslash.
    """
    if not is_on_drive("/" + directory) or "\\" not in untrusted_name:
        return directory, untrusted_name
    name = untrusted_name.replace("\\", "/")
    return (DRIVE_C[1:], name[3:]) if name[1:3] == ":/" else (directory, name)
