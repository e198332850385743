"""One file beneath a root, opened whatever lies there."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from silo.errors import InvalidRequest
from silo.host.beneath import Root

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def open_file(root: Root, path: str) -> BinaryIO | None:
    """None where there is no regular file; no link is followed at the end, and no pipe waited for."""
    try:
        descriptor = root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    return None


def read_file(root: Root, path: str, *, limit_bytes: int) -> bytes | None:
    """The whole of it. Raises InvalidRequest where it is larger."""
    file = open_file(root, path)
    if file is None:
        return None
    with file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise InvalidRequest(f"/{path.lstrip('/')} is larger than {limit_bytes} bytes")
    return content
