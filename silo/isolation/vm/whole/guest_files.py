"""Files in and out of a whole guest by its agent: trees as tar archives, which `cp` needs, and single files where tar is not there.

An archive passes through a temporary file in the guest, because the agent hands a program's output over only when the program
has ended, and at most 16 MiB of it. It is made for the agent's user alone and is gone afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import ntpath
import posixpath
import secrets
import stat
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from silo.errors import GuestError, InvalidRequest, NotFound, ProcessStartFailed, SiloError, Unsupported
from silo.isolation.vm.answers import PathStatus
from silo.isolation.vm.whole.guest_agent import REQUEST_LIMIT_S, SLOWEST_BYTES_S, Executed, GuestAgent

PIECE_BYTES = 512 << 10
_PIECE_LIMIT_S = REQUEST_LIMIT_S + PIECE_BYTES / SLOWEST_BYTES_S
_TAR_BLOCK, _TAR_RECORD = 512, 10240

# $1 is the path; type and permissions in hexadecimal, size, time, owner and group, then a link's target and that one's mode
_STAT = """
stat -c '%f %s %Y %u %g' -- "$1" || exit
[ ! -L "$1" ] || { stat -L -c %f -- "$1" 2>/dev/null || echo 0; readlink -- "$1"; }
"""
# /tmp may be in memory. The name is printed for us.
_TEMPORARY = 'd=/var/tmp; [ -d "$d" ] || d=/tmp; mktemp "$d/silo.XXXXXXXXXX"'


class _Piece(msgspec.Struct, frozen=True, rename="kebab"):
    count: int
    buf_b64: str = ""
    eof: bool = False


class _Written(msgspec.Struct, frozen=True):
    count: int


class _Position(msgspec.Struct, frozen=True):
    position: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A path, split as the guest's system does."""

    parent: str
    name: str
    path: str


class GuestFiles:
    """Over a connected agent. `windows` says how the guest names files."""

    def __init__(self, agent: GuestAgent, *, windows: bool) -> None:
        self._agent = agent
        self._windows = windows

    # --- single files

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """The untrusted contents, piece by piece. Raises NotFound, GuestError."""
        handle = await self._open(path, "rb")
        try:
            async for piece in self._pieces(handle):
                yield piece
        finally:
            await self._close(handle)

    async def write(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """A new file, or all of one that is there."""
        handle = await self._open(path, "wb")
        try:
            async for piece in pieces:
                for start in range(0, len(piece), PIECE_BYTES):
                    await self._write_piece(handle, piece[start : start + PIECE_BYTES])
        finally:
            await self._close(handle)

    async def _open(self, path: str, mode: str) -> int:
        try:
            return await self._agent.ask(int, "guest-file-open", path=path, mode=mode)
        except GuestError as error:
            text = error.details.casefold()
            if "no such file" in text or "cannot find" in text:
                raise NotFound(f"there is no {path} in the guest", details=error.details) from None
            raise

    async def _close(self, handle: int) -> None:
        with contextlib.suppress(SiloError):
            await asyncio.shield(self._agent.request("guest-file-close", handle=handle))

    async def _pieces(self, handle: int) -> AsyncIterator[bytes]:
        while True:
            piece = await self._agent.ask(
                _Piece,
                "guest-file-read",
                handle=handle,
                count=PIECE_BYTES,
                limit_s=_PIECE_LIMIT_S,
                line_bytes=2 * PIECE_BYTES,
            )
            try:
                untrusted_data = base64.b64decode(piece.buf_b64, validate=True)
            except ValueError:
                raise GuestError("the guest agent sent a file's contents that are no base64") from None
            if untrusted_data:
                yield untrusted_data
            if piece.eof or not untrusted_data:
                return

    async def _write_piece(self, handle: int, data: bytes) -> None:
        while data:
            text = base64.b64encode(data).decode()
            written = await self._agent.ask(
                _Written, "guest-file-write", handle=handle, buf_b64=text, limit_s=_PIECE_LIMIT_S
            )
            if not 0 < written.count <= len(data):
                raise GuestError(f"the guest says that it has written {written.count} of {len(data)} bytes")
            data = data[written.count :]

    async def _size(self, path: str) -> int:
        handle = await self._open(path, "rb")
        try:
            return (await self._agent.ask(_Position, "guest-file-seek", handle=handle, offset=0, whence="end")).position
        finally:
            await self._close(handle)

    # --- trees

    async def stat(self, path: str) -> PathStatus:
        """Raises NotFound, GuestError. Of a Windows guest only kind and size."""
        place = self._split(path)
        if not self._windows:
            done = await self._run(("/bin/sh", "-c", _STAT, "silo", place.path), place.path)
            return _parse_status(done.untrusted_stdout, place.name)
        try:
            mode, size = stat.S_IFREG | 0o644, await self._size(place.path)
        except NotFound:
            raise
        except GuestError:
            # a directory cannot be opened as a file
            await self._run(("cmd.exe", "/d", "/c", "dir", "/ad", "/b", place.path), place.path)
            mode, size = stat.S_IFDIR | 0o755, 0
        return PathStatus(name=place.name, mode=mode, size=size, mtime_ns=0, uid=0, gid=0, link="", target_mode=0)

    async def archive_out(self, path: str) -> AsyncIterator[bytes]:
        """A tar of the file or tree `path`, beginning with its last name. Untrusted. Raises NotFound, GuestError."""
        place = self._split(path)
        async with self._temporary() as archive:
            try:
                await self._run(("tar", "-C", place.parent, "-cf", archive, "--", place.name), place.path)
            except ProcessStartFailed:
                packed = False
            else:
                packed = True
                async for piece in self.read(archive):
                    yield piece
        if not packed:
            async for piece in self._pack_file(place):
                yield piece

    async def archive_in(self, directory: str, pieces: AsyncIterator[bytes], *, keep_owners: bool = False) -> None:
        """Extract a tar into a directory that exists. Raises NotFound, GuestError, Unsupported."""
        place = self._split(directory)
        words: list[str] = ["tar", "-C", place.path, "-xpf"]
        async with self._temporary() as archive:
            await self.write(archive, pieces)
            owners = () if self._windows else ("--same-owner" if keep_owners else "--no-same-owner",)
            try:
                await self._run((*words, archive, *owners), place.path)
            except ProcessStartFailed as error:
                raise Unsupported(
                    "this guest has no tar, so nothing can be copied into it", details=error.details
                ) from error

    def _split(self, path: str) -> _Place:
        if "\0" in path:
            raise InvalidRequest(f"{path!r} is no path")
        if self._windows:
            whole = ntpath.normpath(path.replace("/", "\\"))
            parent, name = ntpath.split(whole)
        else:
            whole = str(PurePosixPath("/", path))
            parent, name = posixpath.split(whole)
        if path.endswith(("/.", "\\.")):
            # as docker cp means it: what is in there, by names that begin with a dot
            parent, name = whole, "."
        return _Place(parent, name or ".", whole)

    @contextlib.asynccontextmanager
    async def _temporary(self) -> AsyncIterator[str]:
        """The path of a file in the guest that is gone afterwards."""
        if self._windows:
            path = f"C:\\Windows\\Temp\\silo-{secrets.token_hex(16)}.tar"
        else:
            done = await self._run(("/bin/sh", "-c", _TEMPORARY), "a temporary file")
            path = done.untrusted_stdout[:200].decode(errors="replace").strip()
        remove = ("cmd.exe", "/d", "/c", "del", "/q", path) if self._windows else ("rm", "-f", "--", path)
        try:
            yield path
        finally:
            with contextlib.suppress(SiloError):
                await asyncio.shield(self._agent.run(remove))

    async def _run(self, words: Sequence[str], subject: str) -> Executed:
        done = await self._agent.run(words)
        if done.code == 0:
            return done
        complaint = _printable(done.untrusted_stderr)
        lowered = complaint.casefold()
        if "no such file" in lowered or "file not found" in lowered or "cannot find" in lowered:
            raise NotFound(f"there is no {subject} in the guest", details=complaint)
        raise GuestError(f"{words[0]} failed in the guest with {done.code} on {subject}", details=complaint)

    async def _pack_file(self, place: _Place) -> AsyncIterator[bytes]:
        """One file as a tar made here, exactly as long as it was when it was asked for."""
        entry = tarfile.TarInfo(place.name)
        entry.size = left = await self._size(place.path)
        written = 0
        yield (head := entry.tobuf(tarfile.PAX_FORMAT))
        async for piece in self.read(place.path):
            piece = piece[:left]
            left -= len(piece)
            yield piece
            if not left:
                break
        if left:
            raise GuestError(f"{place.path} got shorter while it was copied")
        written = len(head) + entry.size
        tail = -written % _TAR_BLOCK + 2 * _TAR_BLOCK
        yield bytes(tail + -(written + tail) % _TAR_RECORD)


async def one_piece(data: bytes) -> AsyncIterator[bytes]:
    """What `write` and `archive_in` take, of bytes that are there already."""
    stream = io.BytesIO(data)
    while piece := stream.read(PIECE_BYTES):
        yield piece


def _printable(untrusted_text: bytes) -> str:
    text = untrusted_text.decode(errors="replace")
    return "".join(sign if sign.isprintable() else " " for sign in text)[-500:].strip()


def _parse_status(untrusted_text: bytes, name: str) -> PathStatus:
    lines = untrusted_text.decode(errors="replace").split("\n", 2)
    try:
        mode, size, mtime, uid, gid = lines[0].split()
        target_mode = int(lines[1], 16) if len(lines) > 2 and lines[1] else 0
        values = {
            "mode": int(mode, 16),
            "size": int(size),
            "mtime_ns": int(mtime) * 10**9,
            "uid": int(uid),
            "gid": int(gid),
        }
        link = lines[2].removesuffix("\n") if len(lines) > 2 else ""
        return msgspec.convert({"name": name, "link": link, "target_mode": target_mode, **values}, PathStatus)
    except (ValueError, IndexError, msgspec.ValidationError) as error:
        raise GuestError("the guest's answer about a file cannot be read", details=str(error)) from None
