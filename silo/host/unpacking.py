"""What both kinds of layer unpackers, Linux' and Windows', tell about an archive: what it came to, and what was wrong with it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from silo.errors import InvalidRequest, SiloError
from silo.host.durable import host_error

# Errors that an archive brings about by its names and links, on a healthy disk.
_ARCHIVE_ERRORS = frozenset(
    (
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EXDEV,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOENT,
        errno.EINVAL,
        errno.EILSEQ,
        errno.EMLINK,
        errno.ERANGE,
        errno.E2BIG,
        errno.EOVERFLOW,
        errno.EPERM,
    )
)
_MAX_WARNINGS = 20


@dataclass(slots=True)
class Unpacked:
    """What became of a layer."""

    entries: int = 0
    file_bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """The first twenty are kept."""
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)


def explain_entry(error: OSError | InvalidRequest, name: str, offset: int) -> SiloError:
    """The error of one entry as one that names it and where in the archive it ends: the archive's fault, or the host's."""
    where = f"entry {name!r} (before offset {offset})"
    if isinstance(error, InvalidRequest):
        return InvalidRequest(f"{where}: {error.brief}", details=error.details, hint=error.hint)
    if error.errno in _ARCHIVE_ERRORS:
        return InvalidRequest(f"{where} cannot be unpacked", details=error.strerror or str(error))
    return host_error(error, f"cannot unpack {name!r}")
