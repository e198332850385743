"""Who a program runs as: Docker's `user[:group]` resolved against the container's own /etc/passwd and /etc/group.

The files are the image's and untrusted: opened beneath the container's root, bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from silo.host.mounts import read_beneath
from silo.model.accounts import MAXIMUM_ID, Identity, resolve_identity

_MAXIMUM_FILE_BYTES = 4 << 20


def load_identity(
    root: Path | int, user: str, extra_groups: Sequence[str] = (), *, limit: int = MAXIMUM_ID
) -> Identity:
    """Resolve against the files beneath `root`. `limit`: ids must be below it (the size of a user namespace)."""
    return resolve_identity(_load(root, "/etc/passwd"), _load(root, "/etc/group"), user, extra_groups, limit=limit)


def _load(root: Path | int, path: str) -> str:
    """The text, or nothing when the image has no such file (or none that can be used)."""
    try:
        return read_beneath(root, path, maximum_bytes=_MAXIMUM_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""
