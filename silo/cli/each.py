"""One call for each of several names: every one is tried, errors are told as they come, and the status says if any failed."""

from __future__ import annotations

import sys

from silo.cli.complaint import complain
from silo.cli.failure import ApiError, DaemonUnreachable, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def for_each(names: Iterable[str], call: Callable[[str], object], *, echo: bool = True, forgive: str = "") -> int:
    """Echo the names that went well. `forgive`: what does not exist is no failure, `aloud` or `silently`."""
    status = 0
    for name in names:
        try:
            call(name)
        except DaemonUnreachable:
            raise
        except Failure as failure:
            missing = isinstance(failure, ApiError) and failure.http_status == 404
            if not (missing and forgive == "silently"):
                complain(failure.message)
            status = status if missing and forgive else 1
            continue
        if echo:
            sys.stdout.write(f"{name}\n")
    return status
