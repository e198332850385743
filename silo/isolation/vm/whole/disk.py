"""The user's disk: opened once, looked at by a QEMU in a jail of its own, and kept by a lock as long as a machine uses it.

The file is untrusted. What its first bytes say is checked here (headers.py); all else about it is found out by a QEMU that holds
nothing but a descriptor of the file, under limits of time and memory, as a user of its own. The machine gets the same open
file and the format by name, so nothing is guessed again and nobody can exchange the file in between.

    <store>/overlay.qcow2   what the guest has changed, unless it writes to the user's file itself
    <store>/base.json       which file the overlay belongs to
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import AccessDenied, Conflict, GuestError, HostError, InvalidRequest, NotFound, ToolMissing
from silo.host.durable import host_error
from silo.host.run import run
from silo.isolation.vm.jail import Jail
from silo.isolation.vm.whole.command import DISK_IN_JAIL, DISK_NODE, build_look
from silo.isolation.vm.whole.headers import HEAD_BYTES, check_head
from silo.isolation.vm.whole.launch import limited, start_jailed
from silo.model.disk_guest import DiskFormat, DiskGuest

LOOK_LIMIT_S = 15
LOOK_MEMORY_BYTES = 1 << 30
_LARGEST_BYTES = 64 << 40
_COMPRESSED = "streamOptimized"
_ALONE = "make one that stands alone: qemu-img convert -O qcow2 FILE NEW.qcow2"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Tells whether a file is what it was. An overlay over anything else would be a broken disk."""

    path: str
    format: DiskFormat
    size_bytes: int
    file: tuple[int, int, int, int]
    """device, inode, length, time of the last change (ns)"""


@dataclass(slots=True, eq=False)
class OpenDisk:
    """Made by `open_disk`; `size_bytes` is what the guest sees. The lock is the open file's: a machine keeps it after `close`."""

    path: Path
    format: DiskFormat
    size_bytes: int
    descriptor: int
    persist: bool

    def identity(self) -> Identity:
        status = os.fstat(self.descriptor)
        file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return Identity(path=str(self.path), format=self.format, size_bytes=self.size_bytes, file=file)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


async def open_disk(disk: DiskGuest, *, uid: int) -> OpenDisk:
    """The user's file, looked at and locked; `uid` is the machine's own.

    Many machines may run over one file, one alone may write to it. Raises NotFound, InvalidRequest with the way out, Conflict.
    """
    path, disk_format, persist = disk.path, disk.format, disk.persist
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as undo:
        descriptor = _open(path, persist=persist)
        kept.callback(os.close, descriptor)
        head, length = os.pread(descriptor, HEAD_BYTES, 0), os.fstat(descriptor).st_size
        check_head(head, length, disk_format, str(path))
        # QEMU takes a descriptor of the very mode that it wants to open with
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, reading)
        untrusted_report = await _look(path, disk_format, reading, uid=uid)
        size_bytes = check_report(untrusted_report, disk_format, str(path), persist=persist)
        kept.pop_all()
    return OpenDisk(path, disk_format, size_bytes, descriptor, persist)


def _open(path: Path, *, persist: bool) -> int:
    # nonblocking: a FIFO must not hold the daemon up
    flags = (os.O_RDWR if persist else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise NotFound(f"there is no disk {path}") from None
    except PermissionError as error:
        raise AccessDenied(f"the disk {path} cannot be opened", details=str(error)) from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be opened as a disk", details=error.strerror or "") from None
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device" if stat.S_ISBLK(mode) else "no file"
            raise InvalidRequest(
                f"{path} is {kind}; a disk is a file", hint="copy a device into a file: qemu-img convert"
            )
        _lock(descriptor, path, alone=persist)
        undo.pop_all()
    return descriptor


def _lock(descriptor: int, path: Path, *, alone: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        how = "is used by another machine, so nobody can write to it" if alone else "is written to by another machine"
        raise Conflict(f"the disk {path} {how}", hint="stop that machine, or copy the disk") from None


async def _look(path: Path, disk_format: DiskFormat, descriptor: int, *, uid: int) -> Any:
    """QEMU's report of the disk's node. Raises InvalidRequest when it cannot be opened as this format."""
    with tempfile.TemporaryDirectory(prefix="silo-disk-") as folder:
        try:
            looking = await start_jailed(
                Path(folder),
                lambda ends: build_look(disk_format, ends["monitor.sock"], descriptor),
                jail=Jail(uid=uid),
                listeners=("monitor.sock",),
                passed=(descriptor,),
                wrap=lambda argv: limited(argv, memory_bytes=LOOK_MEMORY_BYTES, processor_s=LOOK_LIMIT_S),
            )
        except ToolMissing:
            raise
        except HostError as error:
            # behind the option that it complains of
            details = error.details.rpartition("}: ")[2].replace(DISK_IN_JAIL, str(path))
            raise InvalidRequest(
                f"{path} cannot be opened as a {disk_format} disk",
                details=details,
                hint=f"see qemu-img check, or {_ALONE}",
            ) from error
        try:
            untrusted_nodes = await looking.monitor.execute("query-named-block-nodes", flat=True, limit_s=LOOK_LIMIT_S)
        finally:
            await looking.end()
    try:
        return next(node["image"] for node in untrusted_nodes if node["node-name"] == DISK_NODE)
    except (KeyError, TypeError, StopIteration):
        raise GuestError(f"QEMU's report on {path} cannot be read") from None


class _Extent(msgspec.Struct, frozen=True):
    filename: str = ""


class _Details(msgspec.Struct, frozen=True, rename="kebab"):
    data_file: str | None = None
    create_type: str = ""
    extents: list[_Extent] = []
    corrupt: bool = False


class _Specific(msgspec.Struct, frozen=True):
    data: _Details = _Details()


class _Report(msgspec.Struct, frozen=True, rename="kebab"):
    virtual_size: int
    format: str
    backing_filename: str | None = None
    format_specific: _Specific = _Specific()
    encrypted: bool = False


def check_report(untrusted_report: Any, disk_format: DiskFormat, name: str, *, persist: bool) -> int:
    """The size that the guest sees. Raises InvalidRequest for a disk that is not all in its one file. Pure."""
    try:
        report = msgspec.convert(untrusted_report, _Report)
    except msgspec.ValidationError as error:
        raise GuestError(f"QEMU's report on {name} cannot be read", details=str(error)) from None
    details = report.format_specific.data
    if report.format != disk_format:
        raise InvalidRequest(f"{name} is no {disk_format} disk")
    if report.backing_filename is not None:
        raise InvalidRequest(f"{name} names a backing file, which could be any file of this host", hint=_ALONE)
    elsewhere = [extent for extent in details.extents if extent.filename != DISK_IN_JAIL]
    if details.data_file is not None or elsewhere or len(details.extents) > 1:
        raise InvalidRequest(f"{name} keeps its contents in other files, which could be any of this host", hint=_ALONE)
    if report.encrypted:
        raise InvalidRequest(f"{name} is encrypted", hint=_ALONE)
    if not 0 < report.virtual_size <= _LARGEST_BYTES:
        raise InvalidRequest(f"{name} says that it is a disk of {report.virtual_size} bytes")
    if persist and details.create_type == _COMPRESSED:
        raise InvalidRequest(f"{name} is a compressed VMDK, which cannot be written to", hint=_ALONE)
    return report.virtual_size


# --- what the guest changes


def ensure_overlay(store: Path, disk: OpenDisk) -> Path:
    """The overlay over `disk`, the one of before if the container has run already. Blocks.

    Raises Conflict when the user's file has changed since: what the guest has written would not fit to it any more.
    """
    overlay, record = store / "overlay.qcow2", store / "base.json"
    identity = disk.identity()
    if record.exists():
        try:
            before = msgspec.json.decode(record.read_bytes(), type=Identity)
        except (OSError, msgspec.DecodeError) as error:
            raise HostError(f"{record} cannot be read", details=str(error)) from error
        if before != identity:
            raise Conflict(
                f"the disk {disk.path} has changed since this container was made of it",
                hint="make a new container of it; this one's changes need the old disk",
            )
        return overlay
    if os.access(overlay, os.F_OK):
        overlay.unlink()
    try:
        run(["qemu-img", "create", "-q", "-f", "qcow2", overlay, str(disk.size_bytes)], timeout_s=60)
    except ToolMissing:
        raise ToolMissing("qemu-img", "qemu-utils") from None
    try:
        overlay.chmod(0o600)
        # written last: an overlay without it was never used
        temporary = store / ".base.json"
        temporary.write_bytes(msgspec.json.encode(identity))
        temporary.replace(record)
    except OSError as error:
        raise host_error(error, f"cannot write {record}") from error
    return overlay


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor to read and write one of our own files by. Raises HostError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{path} cannot be opened", details=str(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
