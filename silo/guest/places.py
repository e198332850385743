"""Files beneath a container's root, named by the host, resolved by the kernel."""

from __future__ import annotations

import os

from silo.guest.failures import Refused
from silo.guest.kernel import open_in_root


def open_parent(root: int, path: str) -> tuple[int, str]:
    """(descriptor of the parent, last component); ("." for the root itself). The component is not looked at."""
    parent, _, name = path.strip("/").rpartition("/")
    if name in (".", ".."):
        raise Refused("invalid", f"{path!r} does not name a file")
    return open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY), name or "."
