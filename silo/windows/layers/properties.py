"""What NTFS knows of a file and Linux does not, as the records of a layer's tar say it.

Record names and values: microsoft/go-winio, backuptar/tar.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping

import msgspec

from silo.errors import InvalidRequest
from silo.model.tar_format import build_time
from silo.windows.layers import security

READ_ONLY, HIDDEN, SYSTEM, DIRECTORY, ARCHIVE, NORMAL = 0x1, 0x2, 0x4, 0x10, 0x20, 0x80
SPARSE, REPARSE_POINT = 0x200, 0x400

ATTRIBUTES_RECORD = "MSWINDOWS.fileattr"
_DESCRIPTOR = "MSWINDOWS.rawsd"
_SDDL = "MSWINDOWS.sd"
_JUNCTION = "MSWINDOWS.mountpoint"
_EXTENDED = "MSWINDOWS.xattr."
_CREATED = "LIBARCHIVE.creationtime"
_MAXIMUM_EXTENDED_BYTES = 65536
_SECOND = 1_000_000_000
# What fits into FILETIME: the years 1601 to 30828.
_EARLIEST_NS, _LATEST_NS = -11_644_473_600 * _SECOND, 910_692_730_085 * _SECOND


class Stream(msgspec.Struct, frozen=True, array_like=True):
    """An alternate data stream: its bytes, or where they are kept (silo/windows/layers/keeping.py)."""

    data: bytes = b""
    digest: str = ""
    size: int = 0


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a file, directory or link."""

    attributes: int | None = None
    """FILE_ATTRIBUTE_*; without DIRECTORY and REPARSE_POINT, which the kind of entry says."""
    created_ns: int | None = None
    """None: when it was last written to."""
    descriptor: bytes = b""
    """Self-relative; empty: the default one."""
    sddl: str = ""
    """The descriptor as text, in old layers."""
    extended: dict[str, bytes] = {}
    """Extended attributes (EAs)."""
    streams: dict[str, Stream] = {}
    target: str = ""
    """Of a link, in Windows' words."""
    is_junction: bool = False


def parse_records(
    untrusted_records: Mapping[str, bytes], *, is_directory: bool, warn: Callable[[str], None]
) -> Properties:
    """A member's properties; records of others are passed over. Raises InvalidRequest."""
    attributes = _parse_attributes(untrusted_records.get(ATTRIBUTES_RECORD))
    descriptor = _decode(untrusted_records.get(_DESCRIPTOR, b""), _DESCRIPTOR, security.MAXIMUM_BYTES)
    if descriptor == security.default_descriptor(is_directory=is_directory, is_users=False):
        descriptor = b""
    sddl = "" if _DESCRIPTOR in untrusted_records else _parse_sddl(untrusted_records.get(_SDDL, b""))
    extended = {}
    for key, value in untrusted_records.items():
        if key.startswith(_EXTENDED):
            extended[key.removeprefix(_EXTENDED)] = _decode(value, key, _MAXIMUM_EXTENDED_BYTES)
    if sum(len(name) + len(value) for name, value in extended.items()) > _MAXIMUM_EXTENDED_BYTES:
        raise InvalidRequest(f"its extended attributes take more than {_MAXIMUM_EXTENDED_BYTES} bytes")
    created_ns = None
    if _CREATED in untrusted_records:
        created_ns = parse_time(untrusted_records[_CREATED])
        if created_ns is None:
            warn(f"the time of creation {untrusted_records[_CREATED][:40]!r} is none: the time of change is taken")
    return Properties(
        attributes=attributes,
        created_ns=created_ns,
        descriptor=descriptor,
        sddl=sddl,
        extended=extended,
        is_junction=_JUNCTION in untrusted_records,
    )


def build_records(
    properties: Properties, *, attributes: int, modified_ns: int, is_directory: bool, is_users: bool
) -> dict[str, bytes]:
    """The records of one member. `is_users`: it is ContainerUser's where no descriptor says otherwise."""
    created_ns = modified_ns if properties.created_ns is None else properties.created_ns
    time = build_time(modified_ns)
    records = {
        "atime": time,
        "ctime": time,
        _CREATED: build_time(created_ns),
        ATTRIBUTES_RECORD: b"%d" % attributes,
    }
    if properties.sddl and not properties.descriptor:
        records[_SDDL] = properties.sddl.encode()
    else:
        default = security.default_descriptor(is_directory=is_directory, is_users=is_users)
        records[_DESCRIPTOR] = base64.b64encode(properties.descriptor or default)
    if properties.is_junction:
        records[_JUNCTION] = b"1"
    for name, value in properties.extended.items():
        records[_EXTENDED + name] = base64.b64encode(value)
    return records


def parse_time(untrusted_raw: bytes) -> int | None:
    """Seconds with or without a fraction, maybe negative → nanoseconds since 1970; None when it is no time of Windows.

    BuildKit writes the nanoseconds without leading zeros; what it meant cannot be told, and is less than a second away.
    """
    whole, _, fraction = untrusted_raw.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 12 or (fraction and not fraction.isdigit()):
        return None
    time_ns = int(whole) * _SECOND + int((fraction + b"000000000")[:9])
    if untrusted_raw.startswith(b"-"):
        time_ns = -time_ns
    return time_ns if _EARLIEST_NS <= time_ns < _LATEST_NS else None


def _parse_attributes(untrusted_raw: bytes | None) -> int | None:
    if untrusted_raw is None:
        return None
    if not untrusted_raw.isdigit() or len(untrusted_raw) > 10 or int(untrusted_raw) >= 1 << 32:
        raise InvalidRequest(
            f"its file attributes are {untrusted_raw[:20]!r}", details=f"{ATTRIBUTES_RECORD} is a number"
        )
    return int(untrusted_raw) & ~(DIRECTORY | REPARSE_POINT)


def _parse_sddl(untrusted_raw: bytes) -> str:
    if len(untrusted_raw) > security.MAXIMUM_BYTES or not untrusted_raw.isascii():
        raise InvalidRequest(f"its record {_SDDL} is no security descriptor in SDDL")
    return untrusted_raw.decode()


def _decode(untrusted_raw: bytes, key: str, limit: int) -> bytes:
    try:
        value = base64.b64decode(untrusted_raw, validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"its record {key} is not base64", details=str(error)) from error
    if len(value) > limit:
        raise InvalidRequest(f"its record {key} takes {len(value)} bytes, more than {limit}")
    return value
