"""What a container has changed: its scratch compared with the layers of its image, in Docker's three kinds.

For Windows containers paths are shown as `C:\\…`; the registry's files are compared by what they say, so that what every boot
rewrites is no change; the Linux side of the silo (sockets, mount points) is not shown.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from silo.engine.ports import FileChange
from silo.host.beneath import Links, Root
from silo.host.overlay import is_moved, is_opaque, is_whiteout
from silo.host.whole_files import open_file
from silo.model.leftovers import is_leftover
from silo.model.windows_paths import PREFIX, REGISTRY_FILES, USER_REGISTRY_DIRECTORY, resolve_case, windows_path
from silo.storage.failures import explained
from silo.storage.views import Shown

MODIFIED = 0
ADDED = 1
DELETED = 2

CompareRegistry = Callable[[str, bytes, bytes], Iterable[FileChange]]
"""(file name, before, after) → the keys that changed, in Windows' words."""

_MAXIMUM_REGISTRY_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class _Comparison:
    upper: Root
    lower: Root
    kinds: dict[str, int] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    """Directories whose contents the upper directory does not show."""

    def before(self, path: str) -> os.stat_result | None:
        """In the image; what lies behind a link there has a path of its own."""
        try:
            return self.lower.status(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise

    def note(self, path: str, kind: int) -> None:
        """A change also modifies the directories it is in."""
        self.kinds[path] = kind
        parent = path.rpartition("/")[0]
        while parent and parent not in self.kinds:
            self.kinds[parent] = MODIFIED
            parent = parent.rpartition("/")[0]


def find_changes(
    upper: Path, lower: Path, whole: Shown, *, windows: bool, compare: CompareRegistry | None
) -> tuple[FileChange, ...]:
    """Changes in the order of paths. `lower` shows the image's layers as one, `whole` what a moved directory has. Blocks.

    Raises HostError.
    """
    with explained("compare the container with its image"):
        with Root(upper, links=Links.REFUSE) as above, Root(lower, links=Links.REFUSE) as below:
            comparison = _Comparison(above, below)
            _compare(comparison, above, [("", False)])
            if comparison.moved:
                with whole() as path, Root(path, links=Links.REFUSE) as root:
                    _compare(comparison, root, [(directory, True) for directory in comparison.moved])
            kinds = comparison.kinds
            if not windows:
                return tuple(FileChange(kind=kinds[path], path=f"/{path}") for path in sorted(kinds))
            return (*_on_drive(_without_case(comparison)), *_in_registry(comparison, compare))


def _compare(comparison: _Comparison, root: Root, pending: list[tuple[str, bool]]) -> None:
    """`pending`: directories beneath the root, and whether what lower layers have there is hidden."""
    while pending:
        directory, hidden = pending.pop()
        try:
            descriptor = root.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            # a running container goes on changing things
            continue
        try:
            if is_moved(descriptor):
                comparison.moved.append(directory)
                continue
            hidden_here = hidden or (bool(directory) and is_opaque(descriptor))
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries)
            if hidden_here:
                _note_hidden(comparison, directory, names)
            for name in names:
                path = f"{directory}/{name}" if directory else name
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if is_leftover(path, status):
                    continue
                if _note_entry(comparison, path, status, hidden=hidden_here):
                    pending.append((path, hidden_here))
        finally:
            os.close(descriptor)


def _note_hidden(comparison: _Comparison, directory: str, names: list[str]) -> None:
    """A directory was removed and made again: what it had and has no more is deleted."""
    status = comparison.before(directory)
    if status is not None and stat.S_ISDIR(status.st_mode):
        for name in comparison.lower.names(directory):
            if name not in names:
                comparison.note(f"{directory}/{name}", DELETED)


def _note_entry(comparison: _Comparison, path: str, status: os.stat_result, *, hidden: bool) -> bool:
    """Answers whether to look into it."""
    before = comparison.before(path)
    if is_whiteout(status):
        if before is not None:
            comparison.note(path, DELETED)
        return False
    is_directory = stat.S_ISDIR(status.st_mode)
    if before is None:
        comparison.note(path, ADDED)
    elif not (is_directory and stat.S_ISDIR(before.st_mode)) or _differs(comparison, path, status, before) or hidden:
        comparison.note(path, MODIFIED)
    return is_directory


def _differs(comparison: _Comparison, path: str, status: os.stat_result, before: os.stat_result) -> bool:
    """Of two directories. A change of time alone counts unless something that is nobody's change explains it."""
    if (status.st_mode, status.st_uid, status.st_gid) != (before.st_mode, before.st_uid, before.st_gid):
        return True
    if status.st_mtime_ns == before.st_mtime_ns:
        return False
    try:
        names = comparison.upper.names(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    found = ((f"{path}/{name}", comparison.upper.status(f"{path}/{name}")) for name in names)
    return not any(known is not None and is_leftover(name, known) for name, known in found)


def _without_case(comparison: _Comparison) -> dict[str, int]:
    """On `C:\\` a name that was removed and made again in other letters is the same name, and has changed."""
    kinds = comparison.kinds
    removed = {path.casefold() for path, kind in kinds.items() if kind == DELETED}
    if not removed:
        return kinds
    folded: dict[str, int] = {}
    made = {path.casefold() for path, kind in kinds.items() if kind == ADDED}
    for path, kind in kinds.items():
        if kind == DELETED and path.casefold() in made:
            continue
        if kind == ADDED and _is_below(path.casefold(), removed):
            spelled = resolve_case(f"/{path}", lambda directory: _lower_names(comparison, directory))
            kind = MODIFIED if comparison.lower.status(spelled[1:]) is not None else ADDED
        folded[path] = kind
    return folded


def _is_below(path: str, directories: set[str]) -> bool:
    """Whether the path or a directory that it is in is one of these."""
    while path:
        if path in directories:
            return True
        path = path.rpartition("/")[0]
    return False


def _lower_names(comparison: _Comparison, directory: str) -> list[str]:
    try:
        return comparison.lower.names(directory)
    except OSError:
        return []


def _on_drive(kinds: dict[str, int]) -> Iterable[FileChange]:
    for path in sorted(kinds):
        shown = windows_path(f"/{path}")
        if shown is not None and shown != "C:\\":
            yield FileChange(kind=kinds[path], path=shown)


def _in_registry(comparison: _Comparison, compare: CompareRegistry | None) -> Iterable[FileChange]:
    for name in REGISTRY_FILES:
        path = f"{PREFIX[1:]}/{name}"
        if path not in comparison.kinds:
            continue
        before, after = _read(comparison.lower, path), _read(comparison.upper, path)
        if compare is None:
            if before != after:
                yield FileChange(kind=comparison.kinds[path], path=name)
            continue
        changes = list(compare(name, before, after))
        if name == "user.reg":
            # it began as the file of the container's user, whoever that was
            others = (list(compare(name, _read(comparison.lower, other), after)) for other in _user_files(comparison))
            changes = min([changes, *others], key=len)
        yield from changes


def _user_files(comparison: _Comparison) -> Iterable[str]:
    directory = USER_REGISTRY_DIRECTORY[1:]
    if comparison.before(directory) is not None:
        for user in comparison.lower.names(directory):
            yield f"{directory}/{user}/user.reg"


def _read(root: Root, path: str) -> bytes:
    """A registry file; empty when it is missing or no file, cut where it is larger than any real one."""
    file = open_file(root, path)
    if file is None:
        return b""
    with file:
        return file.read(_MAXIMUM_REGISTRY_BYTES)
