"""An OCI layer as an upper directory without contents: enough to compare it with the image below it.

The layer comes from a guest and is untrusted: names are resolved beneath the directory, sizes are only noted, and contents are kept
for the registry's files alone, which are compared by what they say.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from io import BufferedReader
from pathlib import Path

from silo.errors import InvalidRequest
from silo.host.beneath import Links, Root
from silo.host.overlay import OPAQUE_ATTRIBUTE
from silo.model.windows_paths import PREFIX, REGISTRY_FILES

_MAXIMUM_ENTRIES = 1_000_000
_MAXIMUM_REGISTRY_BYTES = 64 << 20
_REGISTRY = frozenset(f"{PREFIX[1:]}/{name}" for name in REGISTRY_FILES)


def sketch_layer(directory: Path, source: BufferedReader) -> None:
    """Blocks. Raises InvalidRequest for an archive that is damaged or leads elsewhere."""
    try:
        with Root(directory, links=Links.REFUSE) as root, tarfile.open(fileobj=source, mode="r|") as archive:
            for count, entry in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]
                if count >= _MAXIMUM_ENTRIES:
                    raise InvalidRequest("the container has changed too many files to be compared")
                _sketch(root, archive, entry)
    except tarfile.TarError as error:
        raise InvalidRequest("the container's layer is damaged", details=str(error)) from error


def _sketch(root: Root, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    path = "/".join(part for part in entry.name.split("/") if part not in ("", "."))
    if not path or ".." in path.split("/"):
        return
    parent, _, name = path.rpartition("/")
    above = root.directory(parent, create=True)
    # an entry that comes twice changes nothing
    with contextlib.suppress(FileExistsError):
        if name == ".wh..wh..opq":
            os.setxattr(f"/proc/self/fd/{above}", OPAQUE_ATTRIBUTE, b"y")
        elif name.startswith(".wh."):
            os.mknod(name.removeprefix(".wh."), stat.S_IFCHR, 0, dir_fd=above)
        else:
            _make(archive, entry, path, above, name)


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str, above: int, name: str) -> None:
    if entry.isdir():
        os.mkdir(name, 0o700, dir_fd=above)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode & 0o7777)
            os.utime(descriptor, (entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
    elif entry.issym():
        os.symlink(entry.linkname or ".", name, dir_fd=above)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=above), "wb") as file:
            content = archive.extractfile(entry) if path in _REGISTRY and entry.isreg() else None
            if content is not None:
                file.write(content.read(_MAXIMUM_REGISTRY_BYTES))
