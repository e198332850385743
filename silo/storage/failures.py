"""OSErrors of the storage as typed errors: what was being done, and NoSpace where the disk is full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from silo.host.durable import host_error


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an OSError into HostError or NoSpace: "cannot <doing>"."""
    try:
        yield
    except OSError as error:
        raise host_error(error, f"cannot {doing}") from error
