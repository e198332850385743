"""Layers of Windows images as Microsoft's tools and BuildKit write them, made here to the documented format.

    layer([folder("Files"), file("Files/a.txt", b"x", attributes=33, created="1.5")])

Independent of silo.windows.layers on purpose: a second writer that its reader is checked against, and a second reader (`members`)
for its writer. Format: microsoft/go-winio backuptar, moby/buildkit util/winlayers.
"""

from __future__ import annotations

import base64
import io
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

EPOCH_S = 1704067200


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member; `kind` is a tar type flag."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mtime: float = EPOCH_S
    records: dict[str, str] = field(default_factory=dict)


def _records(
    attributes: int | None,
    created: str | None,
    descriptor: bytes | None,
    eas: Mapping[str, bytes] | None,
    more: Mapping[str, str] | None,
) -> dict[str, str]:
    records = dict(more or {})
    if attributes is not None:
        records["MSWINDOWS.fileattr"] = str(attributes)
    if created is not None:
        records["LIBARCHIVE.creationtime"] = created
    if descriptor is not None:
        records["MSWINDOWS.rawsd"] = base64.b64encode(descriptor).decode()
    for name, value in (eas or {}).items():
        records[f"MSWINDOWS.xattr.{name}"] = base64.b64encode(value).decode()
    return records


def file(
    name: str,
    data: bytes | str = b"",
    *,
    attributes: int | None = 32,
    created: str | None = None,
    descriptor: bytes | None = None,
    eas: Mapping[str, bytes] | None = None,
    mtime: float = EPOCH_S,
    more: Mapping[str, str] | None = None,
) -> Member:
    raw = data.encode() if isinstance(data, str) else data
    return Member(name=name, data=raw, mtime=mtime, records=_records(attributes, created, descriptor, eas, more))


def stream(name: str, data: bytes) -> Member:
    """`path:stream`: no records, as go-winio writes it."""
    return Member(name=name, data=data)


def folder(
    name: str,
    *,
    attributes: int | None = 16,
    created: str | None = None,
    descriptor: bytes | None = None,
    mtime: float = EPOCH_S,
    more: Mapping[str, str] | None = None,
) -> Member:
    records = _records(attributes, created, descriptor, None, more)
    return Member(name=name, kind=tarfile.DIRTYPE, mtime=mtime, records=records)


def symlink(name: str, target: str, *, junction: bool = False, attributes: int = 1056) -> Member:
    more = {"MSWINDOWS.mountpoint": "1"} if junction else {}
    records = _records(attributes, None, None, None, more)
    return Member(name=name, kind=tarfile.SYMTYPE, link=target, records=records)


def hardlink(name: str, target: str) -> Member:
    return Member(name=name, kind=tarfile.LNKTYPE, link=target, records=_records(32, None, None, None, None))


def whiteout(name: str) -> Member:
    """Hides `name` of the layers below."""
    parent, _, last = name.rpartition("/")
    return Member(name=f"{parent}/.wh.{last}")


def opaque(name: str) -> Member:
    return Member(name=f"{name}/.wh..wh..opq")


def with_parents(members: Iterable[Member]) -> list[Member]:
    """Every directory has an entry of its own, before what is in it."""
    result: list[Member] = []
    known: set[str] = set()
    for member in members:
        parts = member.name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            if parent not in known:
                known.add(parent)
                result.append(folder(parent))
        if member.kind == tarfile.DIRTYPE and member.name in known:
            result = [known_member for known_member in result if known_member.name != member.name]
        known.add(member.name)
        result.append(member)
    return result


def layer(members: Iterable[Member]) -> bytes:
    """An uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname = member.kind, 0, member.link
            info.mtime, info.size = member.mtime, len(member.data)
            info.pax_headers = dict(member.records)
            archive.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def members(data: bytes) -> list[Member]:
    """What a layer holds, read by another program's code."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            source = archive.extractfile(info) if info.isreg() else None
            content = source.read() if source else b""
            records = {key: value for key, value in info.pax_headers.items() if key[:1].isupper()}
            found.append(
                Member(
                    name=info.name,
                    data=content,
                    kind=info.type,
                    link=info.linkname,
                    mtime=info.mtime,
                    records=records,
                )
            )
    return found


def sid(*parts: int, authority: int = 5) -> bytes:
    return struct.pack(">BBHI", 1, len(parts), 0, authority) + struct.pack(f"<{len(parts)}I", *parts)


def descriptor(owner: bytes, *, size: int = 0) -> bytes:
    """A self-relative security descriptor without a DACL: its owner alone, and padding after it."""
    return struct.pack("<BBHIIII", 1, 0, 0x8000, 20, 0, 0, 0) + owner + bytes(size)
