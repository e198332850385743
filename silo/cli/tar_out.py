"""Pack local files for a container, as a stream of pieces."""

from __future__ import annotations

import io
import os
import tarfile

from silo.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

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


def _member(tar: tarfile.TarFile, path: str, name: str) -> Iterator[bytes]:
    try:
        info = tar.gettarinfo(path, arcname=name)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if info is None:
        # A socket: tar has no word for it.
        return
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
