"""A container's files, reached through the guest's agent: those of a running one, or of a disk in a machine that runs for it.

What comes from a guest is untrusted: statuses are checked values (answers.py), archives are read by those who get them.
"""

from __future__ import annotations

import datetime
import posixpath
from collections.abc import AsyncIterator, Mapping

from silo.errors import InvalidRequest, NotFound
from silo.isolation.vm.answers import PathStatus
from silo.isolation.vm.programs import Guest
from silo.isolation.vm.session import IMAGE, ROOT, SCRATCH
from silo.model.file_modes import go_mode
from silo.model.windows_names import fold


class VmFiles:
    """See silo.engine.ports.RootFiles. `place` is the agent's word for the container's root with all its mounts."""

    def __init__(self, guest: Guest, place: Mapping[str, str]) -> None:
        self._guest = guest
        self._place = place

    async def stat(self, path: str) -> dict[str, object]:
        return describe(await self._status(path), path)

    async def _status(self, path: str) -> PathStatus:
        try:
            return await self._guest.stat(self._place, path)
        except NotFound as error:
            raise NotFound(f"Could not find the file {path} in the container") from error

    async def read(self, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        described = await self.stat(path)
        return described, self._guest.archive_out(self._place, path, name=described["name"])

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        status = await self._status(path.rstrip("/") + "/")
        if not status.mode & 0o040000:
            raise InvalidRequest(f"{path} is not a directory")
        await self._guest.archive_in(
            self._place, path, chunks, keep_owners=copy_uid_gid, no_overwrite=no_overwrite_dir_non_dir
        )

    def export(self) -> AsyncIterator[bytes]:
        return self._guest.archive_out(self._place, "/", name="", one_file_system=True)

    def layer(self) -> AsyncIterator[bytes]:
        return self._guest.archive_out({"root": f"{SCRATCH}/upper"}, "/", name="", layer=True, whole=ROOT, lower=IMAGE)


def describe(untrusted: PathStatus, path: str) -> dict[str, object]:
    """Docker's stat of a path."""
    nanoseconds = min(max(untrusted.mtime_ns, 0), 253_402_300_799_000_000_000)
    modified = datetime.datetime.fromtimestamp(nanoseconds // 1_000_000_000, datetime.UTC)
    return {
        "name": _name(path, untrusted.name),
        "size": untrusted.size,
        "mode": go_mode(untrusted.mode & 0o177777),
        "mtime": f"{modified.strftime('%Y-%m-%dT%H:%M:%S')}.{nanoseconds % 1_000_000_000:09}Z",
        "linkTarget": posixpath.normpath(f"/{untrusted.target}").replace("//", "/") if untrusted.link else "",
    }


def _name(path: str, untrusted_found: str) -> str:
    """Docker's name of a path: its last component as given, `.` for `dir/.`, `/` for the root."""
    if path.endswith("/."):
        return "."
    given = path.rstrip("/").rpartition("/")[2]
    if not given:
        return "/"
    # without case: as it is on the disk
    return untrusted_found if fold(untrusted_found) == fold(given) else given
