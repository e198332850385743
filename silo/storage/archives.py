"""`docker cp`: what lies at a path, and getting it out. Paths are resolved as a process with the container's root would.

A path's end decides about links, as in Docker: `/dir` names a link itself, `/dir/` and `/dir/.` what it leads to. On `C:\\` names
are found without case.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from silo.errors import HostError, InvalidRequest, NotFound
from silo.host.beneath import Links, Root
from silo.host.durable import host_error
from silo.model.file_modes import go_mode
from silo.model.windows_names import fold
from silo.model.windows_paths import is_on_drive, resolve_case
from silo.storage.tar_tree import write_part
from silo.storage.views import Shift

_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_NOT_RESOLVED = (errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG)


def stat_archive(root_path: Path, path: str) -> dict[str, object]:
    """name, size, mode, mtime, linkTarget. Raises NotFound, InvalidRequest. Blocks."""
    with Root(root_path) as root:
        resolved = resolve(root, path)
        return _describe(root, resolved, path)


def read_archive(root_path: Path, path: str, shift: Shift) -> tuple[dict[str, object], Iterator[bytes]]:
    """What stat_archive says, and a tar of the file or tree. Blocks."""
    with Root(root_path) as root:
        resolved = resolve(root, path)
        described = _describe(root, resolved, path)
        status = root.status(resolved)
        if status is not None and stat.S_ISSOCK(status.st_mode):
            raise InvalidRequest(f"{path} is a socket: it cannot be copied")
    return described, _read(root_path, resolved, str(described["name"]), shift)


def _read(root_path: Path, resolved: str, base: str, shift: Shift) -> Iterator[bytes]:
    with Root(root_path, links=Links.REFUSE) as root:
        yield from write_part(root, resolved, base, shift)


def resolve(root: Root, path: str) -> str:
    """The path without links, relative to the root ("" is the root itself). The last component is followed only where the
    path ends in `/` or `/.`, and must then be a directory. Raises NotFound, InvalidRequest."""
    follow = path.endswith(("/", "/."))
    clean = posixpath.normpath("/" + path).strip("/")
    if is_on_drive("/" + clean):
        clean = resolve_case("/" + clean, lambda directory: names_in(root, directory)).strip("/")
    with explained_path(path):
        if follow:
            return _real_path(root, clean, os.O_DIRECTORY)
        parent, _, name = clean.rpartition("/")
        above = _real_path(root, parent, os.O_DIRECTORY)
        resolved = f"{above}/{name}" if above else name
        if root.status(resolved) is None:
            raise NotFound(f"Could not find the file {path} in the container")
        return resolved


def names_in(root: Root, directory: str) -> list[str]:
    """Names of a directory for resolve_case; none where there is no directory."""
    try:
        return root.names(directory)
    except OSError as error:
        if error.errno in (*_NOT_FOUND, *_NOT_RESOLVED):
            return []
        raise


@contextlib.contextmanager
def explained_path(path: str) -> Iterator[None]:
    """OSErrors about a path in a container as NotFound, InvalidRequest, NoSpace or HostError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFound(f"Could not find the file {path} in the container") from error
        if error.errno == errno.ENOTDIR:
            raise InvalidRequest(f"{path} is not a directory", details="not a directory") from error
        if error.errno in _NOT_RESOLVED:
            raise InvalidRequest(
                f"{path} cannot be resolved in the container", details=os.strerror(error.errno)
            ) from error
        raise host_error(error, f"cannot copy {path}") from error


def _real_path(root: Root, path: str, flags: int) -> str:
    """Where the kernel ends up, told by /proc of the opened descriptor relative to the root's."""
    descriptor = root.open(path or ".", os.O_PATH | flags)
    try:
        found = os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink())
        top = os.fspath(Path(f"/proc/self/fd/{root.fd}").readlink())
    finally:
        os.close(descriptor)
    if found == top:
        return ""
    prefix = top if top.endswith("/") else f"{top}/"
    if not found.startswith(prefix):
        raise HostError(f"the place of {path} in the container cannot be told")
    return found[len(prefix) :]


def _describe(root: Root, resolved: str, path: str) -> dict[str, object]:
    status = root.status(resolved)
    if status is None:
        raise NotFound(f"Could not find the file {path} in the container")
    target = ""
    if stat.S_ISLNK(status.st_mode):
        with contextlib.suppress(OSError, HostError):
            target = "/" + _real_path(root, resolved, 0)
        target = target or _target_text(root, resolved)
    modified = datetime.datetime.fromtimestamp(int(status.st_mtime), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "name": _base(path, resolved),
        "size": status.st_size,
        "mode": go_mode(status.st_mode),
        "mtime": f"{modified}.{status.st_mtime_ns % 1_000_000_000:09}Z",
        "linkTarget": target,
    }


def _target_text(root: Root, resolved: str) -> str:
    """Where a link that leads nowhere would lead."""
    link = root.read_link(resolved)
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(resolved), link))


def _base(path: str, resolved: str) -> str:
    """Docker's name of a path: its last component as given, `.` for `dir/.`, `/` for the root."""
    if path.endswith("/."):
        return "."
    given = path.rstrip("/").rpartition("/")[2]
    if not given:
        return "/"
    # without case: as it is on the disk
    last = resolved.rpartition("/")[2]
    return last if fold(last) == fold(given) else given
