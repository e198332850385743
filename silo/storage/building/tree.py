"""A directory that COPY and ADD take from: an unpacked context, an image's root, inline files, a download.

Paths are resolved beneath the directory whatever links lie in it: a link that leads out of a context ends at its top. A source's
last component is followed as well, as Docker does; links within a copied directory are copied as links.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from silo.errors import InvalidRequest, NotFound
from silo.host.beneath import Root
from silo.host.durable import host_error
from silo.model.build import SourceItem, SourceKind
from silo.model.windows_paths import is_on_drive, resolve_case
from silo.storage.archives import names_in, resolve
from silo.storage.building.patterns import compile_component, has_wildcard
from silo.storage.building.plain import is_archive
from silo.storage.failures import explained
from silo.storage.streaming import Halt, run_to_end

_READ_BYTES = 1 << 20
_KEPT_DIGESTS = 1000
_MAXIMUM_MATCHES = 100_000
_NOT_RESOLVED = (errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG)

Excludes = Callable[[str], bool]


class SourceTree:
    """silo.engine.building.ports.SourceTree over a directory that nobody writes to."""

    def __init__(self, directory: Path, digests: Digests | None = None, key: str = "") -> None:
        """`key` names an unchanging directory (an image's): what is found out of it is remembered in `digests`."""
        self.directory = directory
        self._digests = digests
        self._key = key

    async def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A file's content. Raises NotFound, InvalidRequest (larger than the limit, no file)."""
        return await asyncio.to_thread(self._read, path, limit_bytes)

    def _read(self, path: str, limit_bytes: int) -> bytes:
        with Root(self.directory) as root, _explained(path):
            descriptor = root.open(path, os.O_RDONLY | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise InvalidRequest(f"{path} is not a file")
            with open(descriptor, "rb") as file:
                data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise InvalidRequest(f"{path} is larger than {limit_bytes} bytes")
        return data

    async def remove(self, paths: Sequence[str]) -> None:
        """Files of the tree's own directory; none there is fine."""
        await asyncio.to_thread(self._remove, paths)

    def _remove(self, paths: Sequence[str]) -> None:
        with explained("prepare the build's context"), Root(self.directory) as root:
            for path in paths:
                root.remove(path)

    async def find(self, pattern: str, *, archives: bool, excluded: Excludes | None = None) -> tuple[SourceItem, ...]:
        """What a source word means, in order of names; empty where a pattern matches nothing. `archives`: tars are told apart.

        Raises NotFound for a name that is not there, InvalidRequest.
        """
        halt = Halt()
        return await run_to_end(lambda: self._find(pattern, archives, excluded, halt), halt)

    def _find(self, pattern: str, archives: bool, excluded: Excludes | None, halt: Halt) -> tuple[SourceItem, ...]:
        with Root(self.directory) as root, _explained(pattern):
            return tuple(self._describe(root, path, archives, excluded, halt) for path in _expand(root, pattern))

    def _describe(self, root: Root, path: str, archives: bool, excluded: Excludes | None, halt: Halt) -> SourceItem:
        descriptor = root.open(path or ".", os.O_PATH)
        try:
            mode = os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
        resolved = resolve(root, f"/{path}/") if stat.S_ISDIR(mode) else _resolved_file(root, path)
        kind = SourceKind.DIRECTORY
        if stat.S_ISREG(mode):
            kind = SourceKind.ARCHIVE if archives and _is_archive(root, resolved) else SourceKind.FILE
        elif not stat.S_ISDIR(mode):
            raise InvalidRequest(f"{path} is neither a file nor a directory: it cannot be copied")
        key = f"{self._key}\0{resolved}\0{path}"
        digest = self._digests.find(key) if self._digests is not None and excluded is None else None
        if digest is None:
            digest = digest_of(root, resolved, posix_base(path), excluded, halt)
            if self._digests is not None and excluded is None:
                self._digests.keep(key, digest)
        return SourceItem(path=resolved, found=path, name=posix_base(path), kind=kind, digest=digest)


class Digests:
    """Digests of what lies in images, which never changes; the newest are remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def find(self, key: str) -> str | None:
        return self._known.get(key)

    def keep(self, key: str, digest: str) -> None:
        self._known[key] = digest
        while len(self._known) > _KEPT_DIGESTS:
            self._known.popitem(last=False)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """OSErrors about a source as NotFound, InvalidRequest, NoSpace or HostError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{path}: file does not exist") from error
        if error.errno in _NOT_RESOLVED:
            raise InvalidRequest(f"{path} cannot be resolved", details=os.strerror(error.errno)) from error
        raise host_error(error, f"cannot read {path}") from error


def posix_base(path: str) -> str:
    """The last component; "" of the tree itself."""
    return path.rstrip("/").rpartition("/")[2]


def _expand(root: Root, pattern: str) -> list[str]:
    """Paths that a source word names, in order. Components are matched one by one, so nothing else is listed."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidRequest(f"forbidden path outside the build context: {pattern}")
    if not any(map(has_wildcard, parts)):
        path = "/".join(parts)
        if is_on_drive("/" + path):
            path = resolve_case("/" + path, lambda directory: names_in(root, directory)).strip("/")
        return [path]
    found = [""]
    for part in parts:
        found = [inner for outer in found for inner in _matches(root, outer, part)]
        if len(found) > _MAXIMUM_MATCHES:
            raise InvalidRequest(f"{pattern} matches more than {_MAXIMUM_MATCHES} files")
    return found


def _matches(root: Root, directory: str, part: str) -> Iterator[str]:
    on_drive = is_on_drive("/" + directory)
    names = names_in(root, directory or ".")
    expression = compile_component(part, ignore_case=on_drive)
    for name in names:
        if expression.fullmatch(name):
            yield f"{directory}/{name}" if directory else name


def _resolved_file(root: Root, path: str) -> str:
    """A file's place without links, also where its last component is one."""
    for _ in range(40):
        path = resolve(root, f"/{path}")
        status = root.status(path)
        if status is None or not stat.S_ISLNK(status.st_mode):
            return path
        link = root.read_link(path)
        above = "" if link.startswith("/") else path.rpartition("/")[0]
        path = os.path.normpath(f"/{above}/{link}").lstrip("/")
    raise NotFound(f"{path} is a chain of too many links")


def _is_archive(root: Root, path: str) -> bool:
    with open(root.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return is_archive(file)


def digest_of(root: Root, path: str, name: str, excluded: Excludes | None, halt: Halt) -> str:
    """sha256 over a file or tree: each entry's name, kind, mode, owner and content (or link)."""
    total = hashlib.sha256()
    status = root.status(path)
    if status is None:
        raise NotFound(f"{path} is gone")
    is_directory = stat.S_ISDIR(status.st_mode)
    _add_entry(total, root, path, "" if is_directory else name, status)
    if is_directory:
        for below, below_status in walk(root, path):
            relative = below[len(path) :].lstrip("/")
            halt.check()
            if excluded is None or not excluded(relative):
                _add_entry(total, root, below, relative, below_status)
    return total.hexdigest()


def walk(root: Root, top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything beneath a directory, parents first, in order of names; links are not followed."""
    pending = [top]
    while pending:
        directory = pending.pop()
        descriptor = root.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        below = []
        try:
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries)
            for name in names:
                path = f"{directory}/{name}" if directory else name
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    below.append(path)
        finally:
            os.close(descriptor)
        pending.extend(reversed(below))


def _add_entry(total: hashlib._Hash, root: Root, path: str, name: str, status: os.stat_result) -> None:
    content = ""
    if stat.S_ISREG(status.st_mode):
        with open(root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = root.read_link(path)
    line = f"{name}\0{status.st_mode:o}\0{status.st_uid}:{status.st_gid}\0{content}\0"
    total.update(line.encode("utf-8", "surrogateescape"))
