"""Loop devices: a file as a block device, by the kernel's own calls; no program is started.

A device is attached with LO_FLAGS_AUTOCLEAR: the kernel lets it go when the last user (a mount, an open descriptor) has, also
when that user was killed. One file never gets two devices: two file systems on the same bytes would destroy each other.

Source: the kernel's `include/uapi/linux/loop.h`, loop(4).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from silo.errors import HostError, Unsupported

_CONTROL = Path("/dev/loop-control")
_BLOCK_DEVICES = Path("/sys/block")
_LOOP_MAJOR = 7
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encryption's three words less one, flags; names; key; init
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=2I{_INFO.size}s8Q")
_TRIES = 20


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """The path of the block device whose bytes are `file`, usable within the block; what is mounted by then keeps it.

    Blocks. Raises Unsupported where this host gives none (the brief says what was probed), OSError for the file.
    """
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        device = _find_attached(backing)
        if device < 0:
            device = _attach(backing, file)
    finally:
        os.close(backing)
    try:
        # not the descriptor's own name: it is what the table of mounts will say
        yield str(Path(f"/proc/self/fd/{device}").readlink())
    finally:
        os.close(device)


def _find_attached(backing: int) -> int:
    """The open device that has this file already (that of a former daemon's container), -1 if none."""
    wanted = os.fstat(backing)
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(_BLOCK_DEVICES):
            if not entry.name.startswith("loop") or not Path(entry.path, "loop").is_dir():
                continue
            with contextlib.suppress(OSError):
                device = _open_device(int(entry.name.removeprefix("loop")))
                if _identity(device) == (wanted.st_dev, wanted.st_ino):
                    return device
                os.close(device)
    return -1


def _identity(device: int) -> tuple[int, int] | None:
    """(device, inode) of the file that is attached."""
    buffer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, buffer)
    except OSError:
        return None
    fields = _INFO.unpack(buffer)
    return int(fields[0]), int(fields[1])


def _attach(backing: int, file: Path) -> int:
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, os.fsencode(file)[:63], b"", b"", 0, 0)
    config = bytearray(_CONFIG.pack(backing, 0, info, *([0] * 8)))
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(f"{_CONTROL}: {error.strerror}") from error
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            try:
                device = _open_device(number)
            except OSError as error:
                raise _missing(f"/dev/loop{number}: {error.strerror}") from error
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                # somebody else was faster; the next one that is free may be ours
                if error.errno != errno.EBUSY:
                    raise _missing(f"/dev/loop{number} takes no file: {error.strerror}") from error
            else:
                return device
    finally:
        os.close(control)
    raise HostError("no loop device stayed free long enough to be taken")


def _open_device(number: int) -> int:
    """Raises OSError; what is there and is no loop device counts as missing."""
    device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
    found = os.fstat(device)
    if stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) == _LOOP_MAJOR:
        return device
    os.close(device)
    raise FileNotFoundError(errno.ENOENT, "is no loop device", f"/dev/loop{number}")


def _missing(probed: str) -> Unsupported:
    return Unsupported(
        "this host has no loop device for a container's disk",
        details=probed,
        hint="modprobe loop; inside another container, give it /dev/loop-control and loop devices",
    )
