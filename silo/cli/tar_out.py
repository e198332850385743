"""Pack local files for a container, as a stream of pieces."""

from __future__ import annotations

import io
import os
import tarfile

from silo.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from silo.dockerfile.ignore import IgnoreRules

CHUNK_BYTES = 256 * 1024


def pack(path: str, name: str, *, follow: bool) -> Iterator[bytes]:
    """The file or tree at `path` as `name` (empty: a directory's contents). `follow`: a link at `path` stands for its target."""
    if follow:
        path = os.path.realpath(path)
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as tar:
        if name:
            yield from _member(tar, path, name)
        if os.path.isdir(path) and not os.path.islink(path):
            yield from _tree(tar, path, name)
    yield b"\0" * 1024


def _tree(tar: tarfile.TarFile, path: str, name: str) -> Iterator[bytes]:
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        inner = f"{name}/{entry.name}" if name else entry.name
        yield from _member(tar, entry.path, inner)
        if entry.is_dir(follow_symlinks=False):
            yield from _tree(tar, entry.path, inner)


def pack_context(
    path: str, rules: IgnoreRules | None, extra: Mapping[str, bytes], always: Collection[str]
) -> Iterator[bytes]:
    """A build's context: the files beneath `path` that `rules` keep, those of `always` in any case, and `extra` ones by name.

    Everything is root's, as Docker's client has it.
    """
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as tar:
        pending = [""]
        while pending:
            directory = pending.pop()
            with os.scandir(os.path.join(path, directory)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            below = []
            for entry in found:
                inner = f"{directory}/{entry.name}" if directory else entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                excluded = inner in extra or (rules is not None and inner not in always and rules.excludes(inner))
                if not excluded:
                    yield from _member(tar, entry.path, inner, owned=False)
                if is_directory and not (rules is not None and _all_left_out(inner, rules, always)):
                    below.append(inner)
            pending.extend(reversed(below))
    yield from pack_files(extra)


def pack_files(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Files that exist nowhere else, and the end of the archive."""
    for name, data in files.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        yield _head(info) + data + b"\0" * (-len(data) % 512)
    yield b"\0" * 1024


def _all_left_out(directory: str, rules: IgnoreRules, always: Collection[str]) -> bool:
    return rules.excludes_all_beneath(directory) and not any(name.startswith(f"{directory}/") for name in always)


def _member(tar: tarfile.TarFile, path: str, name: str, *, owned: bool = True) -> Iterator[bytes]:
    try:
        info = tar.gettarinfo(path, arcname=name)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if info is None:
        # A socket: tar has no word for it.
        return
    if not owned:
        info.uid, info.gid, info.uname, info.gname = 0, 0, "", ""
    if info.isreg():
        # Hard links are found by inode; the link's target may lie outside of what is copied.
        info.type = tarfile.REGTYPE
        with open(path, "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            yield _head(info)
            left = info.size
            while left:
                data = file.read(min(left, CHUNK_BYTES))
                if not data:
                    raise Failure(f"{path}: the file became shorter while it was copied")
                left -= len(data)
                yield data
        if info.size % 512:
            yield b"\0" * (512 - info.size % 512)
        return
    yield _head(info)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
