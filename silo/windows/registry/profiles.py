"""HKEY_CURRENT_USER of the two users of a Windows container ↔ the file of their profile in a layer. Pure.

    ContainerAdministrator   /silo/prefix/user.reg                 Files/Users/ContainerAdministrator/NTUSER.DAT
    ContainerUser            /silo/users/ContainerUser/user.reg    Files/Users/ContainerUser/NTUSER.DAT

A layer has no delta for a user: Windows keeps it as a whole hive among the files, and that is what is written here, so that a
`reg add HKCU\\…` of one step is seen in the next, here and on Windows. Such a hive of ours holds all that Wine's file does. One
from Windows does not (Wine would miss its own settings), so its keys are laid over those of the base; it is told apart by
having no key `Software\\Wine`. A container keeps its user's registry in /silo/prefix/user.reg, whoever that is.
"""

from __future__ import annotations

import struct

from msgspec.structs import replace

from silo.errors import InvalidRequest
from silo.model.windows_names import fold_lower
from silo.windows.base.environment import ADMINISTRATOR, PREFIX, USER, USER_REGISTRY_DIRECTORY
from silo.windows.hives import Hive, Key, diff_trees, merge_trees, read_hive, read_wine_text, write_hive
from silo.windows.hives.places import DELTA_ROOT
from silo.windows.hives.tree import find_key
from silo.windows.registry.comparing import diff_wine_file
from silo.windows.registry.merging import merge_wine_file
from silo.windows.registry.noise import Noise
from silo.windows.registry.sections import LIMITS

USER_FILE = "user.reg"

_WINE_KEY = "Software\\Wine"
_USERS = {ADMINISTRATOR.lower(): (ADMINISTRATOR, 1), USER.lower(): (USER, 2)}
"""S-1-5-93-2-1 and S-1-5-93-2-2."""
_FULL_ACCESS = 0x000F003F
_FOR_SUBKEYS_TOO = 0x02


def user_hive_path(user: str) -> str:
    """Where a user's hive lies on `C:\\`, as `Users/ContainerUser/NTUSER.DAT`. Raises InvalidRequest for no such user."""
    return f"Users/{_find_user(user)[0]}/NTUSER.DAT"


def user_text_path(user: str) -> str:
    """Where an image has the same for Wine (an absolute path in its root). Raises InvalidRequest for no such user."""
    name = _find_user(user)[0]
    return f"{PREFIX}/{USER_FILE}" if name == ADMINISTRATOR else f"{USER_REGISTRY_DIRECTORY}/{name}/{USER_FILE}"


def build_user_hive(user: str, before: bytes, untrusted_after: bytes) -> bytes | None:
    """The user's whole hive, when the container's Wine file differs from the image's by more than noise.

    Raises DamagedRegistry; InvalidRequest for no such user.
    """
    _, number = _find_user(user)
    if diff_wine_file(USER_FILE, before, untrusted_after) is None:
        return None
    root = _without_noise(read_wine_text(untrusted_after, limits=LIMITS).root)
    # a profile's hive is its user's, unlike those of the machine
    root = replace(root, name=DELTA_ROOT, security=_security(number))
    return write_hive(
        Hive(root=root, modified=max(key.modified for key in (root, *root.subkeys)), file_name="NTUSER.DAT")
    )


def merge_user_hive(base: bytes, untrusted_hive: bytes) -> bytes:
    """The Wine file of a user over whose base (the file of the same user in the base image) an image has a hive.

    A hive that Windows had not written back in full is taken as it stands. Raises DamagedRegistry, InvalidRequest.
    """
    hive = read_hive(untrusted_hive, limits=LIMITS, allow_dirty=True)
    above = _without_noise(merge_trees(hive.root))
    if find_key(above, _WINE_KEY) is not None:
        delta = diff_trees(_without_noise(read_wine_text(base, limits=LIMITS).root), above)
    else:
        delta = replace(above, inherit_class=True)
    return base if delta is None else merge_wine_file(USER_FILE, base, [("NTUSER.DAT", delta)])


def _find_user(user: str) -> tuple[str, int]:
    found = _USERS.get(user.lower())
    if found is None:
        raise InvalidRequest(f"there is no user {user} in a Windows container", hint=f"{ADMINISTRATOR} or {USER}")
    return found


def _without_noise(root: Key) -> Key:
    noise = Noise(USER_FILE)
    kept = tuple(key for key in root.subkeys if not noise.is_key(fold_lower(key.name)))
    return replace(root, subkeys=kept)


def _security(number: int) -> bytes:
    """O:BAG:SYD:P with full access for the user, the system and administrators, here and below.

    Source: Microsoft's documentation of SECURITY_DESCRIPTOR, ACL and SID (MS-DTYP 2.4).
    """
    administrators, system, user = _sid(5, 32, 544), _sid(5, 18), _sid(5, 93, 2, number)
    entries = b"".join(
        struct.pack("<BBHI", 0, _FOR_SUBKEYS_TOO, 8 + len(sid), _FULL_ACCESS) + sid
        for sid in (user, system, administrators)
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 3, 0) + entries
    owner = 20 + len(acl)
    # self-relative, with a protected DACL
    header = struct.pack("<BBHIIII", 1, 0, 0x9004, owner, owner + len(administrators), 0, 20)
    return header + acl + administrators + system


def _sid(authority: int, *numbers: int) -> bytes:
    return struct.pack(f"<BB6s{len(numbers)}I", 1, len(numbers), authority.to_bytes(6, "big"), *numbers)
