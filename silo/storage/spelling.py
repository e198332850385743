"""The true spelling of names on `C:\\` while an archive is extracted: directories are listed once, not for every entry."""

from __future__ import annotations

from silo.host.beneath import Root
from silo.model.windows_names import fold
from silo.model.windows_paths import DRIVE_C, is_on_drive
from silo.storage.archives import names_in

_KEPT_DIRECTORIES = 1000


class Spelling:
    """Names beneath a container's root, found without case."""

    def __init__(self, root: Root) -> None:
        self._root = root
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
            known = {fold(found): found for found in reversed(names_in(self._root, directory))}
            self._directories[directory] = known
        found = known.get(fold(name), name)
        # an exact match wins, and what was removed meanwhile is no match
        exact = found == name or self._root.status(f"{directory}/{name}") is not None
        return name if exact or self._root.status(f"{directory}/{found}") is None else found
