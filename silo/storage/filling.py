"""Copy an image's files into an empty volume, with owners, modes, times, attributes and hard links.

A volume of the plain kind is filled through a directory beside it, so that a crash leaves either nothing or all in it:

    volumes/<name>/.fill     being copied; worthless after a crash
    volumes/<name>/.ready    whole, being moved into `_data`; moving goes on after a crash
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from silo.host.beneath import Links, Root, remove_tree
from silo.storage.failures import explained

_CHUNK = 1 << 26


def fill_volume(location: Path, source_root: Path, path: str, *, staged: bool) -> None:
    """Copy what lies at `path` in `source_root` into the volume at `location` if that is empty.

    `path` is resolved as the container would; something that is missing or no directory copies nothing. Raises HostError,
    NoSpace, and the volume is then as empty as before.
    """
    with explained(f"copy the image's files at {path} into the volume"):
        if staged:
            _finish_move(location)
        if any(os.scandir(location)):
            return
        with Root(source_root) as root:
            try:
                descriptor = root.open(path, os.O_PATH | os.O_DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return
                raise
        try:
            source = Path(f"/proc/self/fd/{descriptor}")
            if staged:
                _fill_staged(location, source)
            else:
                _fill_directly(location, source)
            with Root(location, links=Links.REFUSE) as filled:
                _copy_attributes(filled, "", source, source.stat())
        finally:
            os.close(descriptor)


def _fill_staged(location: Path, source: Path) -> None:
    staging, ready = location.parent / ".fill", location.parent / ".ready"
    _remove(staging)
    staging.mkdir(mode=0o700)
    try:
        _copy_tree(source, staging)
        staging.rename(ready)
    except BaseException:
        _remove(staging)
        raise
    _finish_move(location)


def _fill_directly(location: Path, source: Path) -> None:
    """Into a volume on another file system, where nothing can be renamed to."""
    try:
        _copy_tree(source, location)
    except BaseException:
        for entry in list(os.scandir(location)):
            _remove(Path(entry.path))
        raise


def _finish_move(location: Path) -> None:
    ready = location.parent / ".ready"
    if not ready.is_dir():
        return
    for entry in list(os.scandir(ready)):
        Path(entry.path).rename(location / entry.name)
    ready.rmdir()


def _remove(path: Path) -> None:
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
    except FileNotFoundError:
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(path.name, descriptor)
    finally:
        os.close(descriptor)


def _copy_tree(source: Path, target: Path) -> None:
    """Everything beneath `source` into the directory `target`.

    No container can write to `source`, but one that runs may have the volume mounted and exchange directories for links.
    """
    links: dict[tuple[int, int], str] = {}
    finished: list[tuple[str, Path, os.stat_result]] = []
    pending = [("", source)]
    with Root(target, links=Links.REFUSE) as root:
        while pending:
            prefix, directory = pending.pop()
            for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
                name = f"{prefix}{entry.name}"
                path = Path(entry.path)
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    root.make_directory(name, 0o700)
                    pending.append((f"{name}/", path))
                    finished.append((name, path, status))
                    continue
                if stat.S_ISSOCK(status.st_mode):
                    continue
                if status.st_nlink > 1 and (first := links.setdefault((status.st_dev, status.st_ino), name)) != name:
                    root.hardlink(first, name)
                    continue
                _copy_leaf(root, name, path, status)
                _copy_attributes(root, name, path, status)
        # a directory's times and mode last: its children change them
        for name, path, status in reversed(finished):
            _copy_attributes(root, name, path, status)


def _copy_leaf(root: Root, name: str, path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        root.symlink(str(path.readlink()), name)
    elif stat.S_ISREG(status.st_mode):
        copy_file(path, root.open_write(name, 0o600), status.st_size)
    else:
        root.make_node(name, status.st_mode, status.st_rdev)


def copy_file(path: Path, target: int, size: int) -> None:
    """Contents of a regular file into a new one, holes kept; closes `target`."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            offset = 0
            while offset < size:
                try:
                    offset = os.lseek(source, offset, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        break
                    raise
                end = os.lseek(source, offset, os.SEEK_HOLE)
                os.lseek(target, offset, os.SEEK_SET)
                while offset < end:
                    copied = os.sendfile(target, source, offset, min(end - offset, _CHUNK))
                    if not copied:
                        break
                    offset += copied
            os.ftruncate(target, size)
        finally:
            os.close(source)
    finally:
        os.close(target)


def _copy_attributes(root: Root, name: str, source: Path, status: os.stat_result) -> None:
    """Of what has been made at `name` ("" is the root itself), and of nothing that a link there leads to."""
    root.set_owner(name, status.st_uid, status.st_gid)
    if not stat.S_ISLNK(status.st_mode):
        root.set_mode(name, stat.S_IMODE(status.st_mode))
    follow = str(source).startswith("/proc/self/fd/") and source.parent.name == "fd"
    for attribute in os.listxattr(source, follow_symlinks=follow):
        if not attribute.startswith(("trusted.", "security.selinux")):
            root.set_attribute(name, attribute, os.getxattr(source, attribute, follow_symlinks=follow))
    root.set_times(name, status.st_atime_ns, status.st_mtime_ns)
