"""Names of members of a Windows layer's tar → which part of the layer, and where in it. Pure.

Files/Windows/x.exe        a file of C:
Files/x.txt:notes:$DATA    an alternate data stream
Files/Windows/.wh.y        hides `y` of the layers below
Hives/Software_Delta       the registry's changes
UtilityVM/…                of base layers only
"""

from __future__ import annotations

import enum
import re

from silo.errors import InvalidRequest
from silo.model.windows_names import find_fault, fold

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
HOUSEKEEPING = ".wh..wh."
_DATA = ":$DATA"
_STREAM = re.compile(r"[^\x00/\\:]{1,255}")
_BASE_HIVES = frozenset(
    f"WINDOWS/SYSTEM32/CONFIG/{name}" for name in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM")
)


class Area(enum.Enum):
    """The first component of a member's name."""

    FILES = "files"
    HIVES = "hives"
    UTILITY_VM = "utilityvm"
    OTHER = ""


def split_member(untrusted_name: str) -> tuple[str, str]:
    """(what stands before the last component, the last component), neither checked."""
    parent, _, name = untrusted_name.rstrip("/").rpartition("/")
    return parent, name


def parse_parent(untrusted_parent: str) -> tuple[Area, str]:
    """The directory of a member: its area, and a path in it ("" the area itself). Raises InvalidRequest.

    An empty `untrusted_parent` is the root of the layer, and no area.
    """
    area, *parts = parse_path(untrusted_parent) or [""]
    found = _area(area)
    if found is Area.FILES:
        for part in parts:
            check_name(part)
    return found, "/".join(parts)


def parse_path(untrusted_path: str) -> list[str]:
    """Components, none empty, `.` or `..`. Raises InvalidRequest."""
    if untrusted_path.startswith("/"):
        raise InvalidRequest("its name is absolute")
    parts = [part for part in untrusted_path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidRequest("its name leads out of the layer by `..`")
    return parts


def parse_top(untrusted_name: str) -> Area:
    """The area that a member without a parent names."""
    return _area(untrusted_name)


def split_stream(untrusted_name: str) -> tuple[str, str]:
    """`file:stream` and `file:stream:$DATA` → (file, stream); ("file", "") for a file. Raises InvalidRequest."""
    name, colon, stream = untrusted_name.partition(":")
    if not colon:
        return name, ""
    if stream[-len(_DATA) :].upper() == _DATA:
        stream = stream[: -len(_DATA)]
    if _STREAM.fullmatch(stream) is None:
        raise InvalidRequest(f"{untrusted_name!r} does not name a data stream of a file")
    return name, stream


def check_name(untrusted_name: str) -> None:
    """Raises InvalidRequest for what NTFS or Windows does not allow."""
    fault = find_fault(untrusted_name)
    if fault:
        raise InvalidRequest(f"Windows does not allow the name {untrusted_name!r}", details=fault)


def is_base_hive(path: str) -> bool:
    """Whether a path of C: is one of the registry's own files, which only a base layer holds."""
    return fold(path) in _BASE_HIVES


def _area(component: str) -> Area:
    lowered = component.lower()
    return next((area for area in Area if area.value == lowered), Area.OTHER)
