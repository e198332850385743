"""A disk's files while its system runs, through its guest agent. What that says is untrusted: statuses are checked values."""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator

import msgspec

from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.isolation.vm.answers import PathStatus
from silo.isolation.vm.root_files import describe
from silo.isolation.vm.whole.guest_files import GuestFiles

_MOST_LINKS = 8
_DRIVE = re.compile(r"^/+(?=[A-Za-z]:)")


class DiskFiles:
    """See silo.engine.ports.RootFiles; `cp` only, for nobody but the guest knows its file systems."""

    def __init__(self, files: GuestFiles) -> None:
        self._files = files

    async def stat(self, path: str) -> dict[str, object]:
        return describe(await self._status(path), path)

    async def _status(self, path: str) -> PathStatus:
        """Of a link itself, or with a slash or a dot at the end of what it means."""
        status, place = await self._look(path), path
        for _ in range(_MOST_LINKS):
            if not status.link or not path.endswith(("/", "/.")):
                return status
            place = status.target
            status = await self._look(place)
        raise InvalidRequest(f"{path} is a link to a link, {_MOST_LINKS} times and more")

    async def _look(self, path: str) -> PathStatus:
        try:
            status = await self._files.stat(in_guest(path))
        except NotFound as error:
            raise NotFound(f"Could not find the file {path} in the container") from error
        if status.link:
            folder = posixpath.dirname(path.rstrip("/").removesuffix("/."))
            status = msgspec.structs.replace(status, target=posixpath.normpath(posixpath.join(folder, status.link)))
        return status

    async def read(self, path: str) -> tuple[dict[str, object], AsyncIterator[bytes]]:
        return await self.stat(path), self._files.archive_out(in_guest(path))

    async def write(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool,  # noqa: ARG002 - the guest's tar decides, and never makes a file of a full directory
        copy_uid_gid: bool,
    ) -> None:
        status = await self._status(path.rstrip("/") + "/")
        if not status.mode & 0o040000:
            raise InvalidRequest(f"{path} is not a directory")
        await self._files.archive_in(in_guest(path), chunks, keep_owners=copy_uid_gid)

    def export(self) -> AsyncIterator[bytes]:
        raise Unsupported("a disk's file systems are its own system's and cannot be exported")

    def layer(self) -> AsyncIterator[bytes]:
        raise Unsupported("a disk's file systems are its own system's: there is no image that they differ from")


def in_guest(path: str) -> str:
    """Pure: an absolute path as the engine writes it, in the guest's words: /C:/x is C:/x."""
    return _DRIVE.sub("", path)
