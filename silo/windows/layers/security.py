"""Security descriptors as bytes: the two that files have when nobody says otherwise, and whose file it is. Pure.

Silo does not enforce NTFS permissions. It keeps descriptors for the hosts that do, and asks them one thing: whether a file is
ContainerUser's, since that is a user of the container's Linux too.

Source: [MS-DTYP] 2.4.2 SID, 2.4.4 ACE, 2.4.5 ACL, 2.4.6 SECURITY_DESCRIPTOR in its self-relative form.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAXIMUM_BYTES = 65536
_HEADER = struct.Struct("<BBHIIII")
_SELF_RELATIVE_WITH_DACL = 0x8004
_ACL = struct.Struct("<BBHHH")
_ACE = struct.Struct("<BBHI")
_OBJECT_INHERIT, _CONTAINER_INHERIT, _INHERIT_ONLY = 1, 2, 8
_BOTH = _OBJECT_INHERIT | _CONTAINER_INHERIT
_FULL, _GENERIC_ALL, _READ_AND_EXECUTE, _ADD_FILE, _ADD_SUBDIRECTORY = 0x1F01FF, 0x10000000, 0x1200A9, 2, 4

_Grant = tuple[int, int, bytes]
"""Inheritance flags, access mask, SID."""


def _sid(authority: int, *parts: int) -> bytes:
    return struct.pack(f"<BB6s{len(parts)}I", 1, len(parts), authority.to_bytes(6, "big"), *parts)


_ADMINISTRATORS = _sid(5, 32, 544)
_USERS = _sid(5, 32, 545)
_SYSTEM = _sid(5, 18)
_CREATOR_OWNER = _sid(3, 0)
CONTAINER_USER = _sid(5, 93, 2, 2)
"""S-1-5-93-2-2."""


def _descriptor(owner: bytes, grants: Sequence[_Grant]) -> bytes:
    entries = b"".join(_ACE.pack(0, flags, _ACE.size + len(sid), mask) + sid for flags, mask, sid in grants)
    acl = _ACL.pack(2, 0, _ACL.size + len(entries), len(grants), 0) + entries
    owner_at, group_at = _HEADER.size, _HEADER.size + len(owner)
    header = _HEADER.pack(1, 0, _SELF_RELATIVE_WITH_DACL, owner_at, group_at, 0, group_at + len(_SYSTEM))
    return header + owner + _SYSTEM + acl


_OF_DIRECTORY: tuple[_Grant, ...] = (
    (_BOTH, _FULL, _ADMINISTRATORS),
    (_BOTH, _FULL, _SYSTEM),
    (0, _FULL, _ADMINISTRATORS),
    (_BOTH | _INHERIT_ONLY, _GENERIC_ALL, _CREATOR_OWNER),
    (_BOTH, _READ_AND_EXECUTE, _USERS),
    (_CONTAINER_INHERIT, _ADD_SUBDIRECTORY, _USERS),
    (_CONTAINER_INHERIT, _ADD_FILE, _USERS),
)
_OF_FILE: tuple[_Grant, ...] = (
    (0, _FULL, _ADMINISTRATORS),
    (0, _FULL, _SYSTEM),
    (0, _READ_AND_EXECUTE, _USERS),
)
_DEFAULTS = {
    (True, False): _descriptor(_ADMINISTRATORS, _OF_DIRECTORY),
    (False, False): _descriptor(_ADMINISTRATORS, _OF_FILE),
    (True, True): _descriptor(CONTAINER_USER, ((_BOTH, _FULL, CONTAINER_USER), *_OF_DIRECTORY)),
    (False, True): _descriptor(CONTAINER_USER, ((0, _FULL, CONTAINER_USER), *_OF_FILE)),
}


def default_descriptor(*, is_directory: bool, is_users: bool) -> bytes:
    """What a new file gets: Administrators' as BuildKit writes it, or ContainerUser's with all rights."""
    return _DEFAULTS[is_directory, is_users]


def is_users(untrusted_descriptor: bytes) -> bool:
    """Whether ContainerUser owns what has this descriptor; False for one that is damaged too."""
    if len(untrusted_descriptor) < _HEADER.size:
        return False
    owner = _HEADER.unpack_from(untrusted_descriptor)[3]
    return owner >= _HEADER.size and untrusted_descriptor[owner : owner + len(CONTAINER_USER)] == CONTAINER_USER
