"""The Windows half of the image: a Wine prefix, made by wineboot, then edited into the base of every silo.

/silo/prefix/
    dosdevices/c: -> ../drive_c     and no z:, from the start
    drive_c/                        C:\\; DLLs are hard links to Wine's own
    system.reg user.reg userdef.reg
    .update-timestamp               "disable"
/silo/users/ContainerUser/user.reg  HKEY_CURRENT_USER of the other user
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path

from silo.debian.isolated import run_isolated
from silo.errors import GuestError
from silo.windows.base.environment import (
    ADMINISTRATOR,
    DRIVE_C,
    PREFIX,
    REGISTRY_FILES,
    UNIX_ENVIRONMENT,
    USER,
    USER_REGISTRY_DIRECTORY,
    USER_UID,
    WINE,
    WINESERVER,
)
from silo.windows.base.recipe import (
    REGISTRY_EDITS,
    UPDATE_TIMESTAMP,
    DeleteTree,
    DeleteValue,
    RegistryEdit,
    SetValue,
)
from silo.windows.base.registry_text import RegistryText, quoted
from silo.windows.base.rootfs import WINE_DLLS

_BOOT_LIMIT_S = 100
_PROFILES = "Users"
_SHARED_WITH = (WINE_DLLS, "usr/share/wine/nls")
# wineserver writes a file named after its directory in /tmp; Wine's own working files are no part of an image.
_PREFIX_DEBRIS = ("wineserver", "winetricks.log")


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def boot_prefix(root: Path) -> None:
    """Let wineboot fill a new prefix. Raises CommandFailed, GuestError."""
    prefix = _inside(root, PREFIX)
    (prefix / "dosdevices").mkdir(parents=True)
    # Made beforehand, this directory keeps Wine from adding z: (the container's Unix root), which it would also write
    # into the registry as the place of fonts.
    (prefix / "dosdevices/c:").symlink_to("../drive_c")
    script = f'"{WINE}" wineboot --init && exec "{WINESERVER}" --wait'
    run_isolated(root, ["/bin/sh", "-c", script], env=UNIX_ENVIRONMENT, timeout_s=_BOOT_LIMIT_S)
    absent = [name for name in REGISTRY_FILES if not (prefix / name).is_file()]
    if absent:
        raise GuestError("Wine did not write its registry", details=", ".join(absent))
    if sorted(path.name for path in (prefix / "dosdevices").iterdir()) != ["c:"]:
        raise GuestError("Wine made drives besides C: in the base")
    for name in _PREFIX_DEBRIS:
        (prefix / name).unlink(missing_ok=True)


def apply_edit(registry: RegistryText, edit: RegistryEdit) -> None:
    """Make one change; deleting what is not there is no error."""
    if isinstance(edit, SetValue):
        registry.set_value(edit.key, edit.name, edit.data)
    elif isinstance(edit, DeleteValue):
        registry.delete_value(edit.key, edit.name)
    elif isinstance(edit, DeleteTree):
        registry.delete_tree(edit.key)
    else:
        registry.delete_interfaces(edit.typelib)


def capitalised_profiles(data: bytes) -> bytes:
    """Registry text with `C:\\users` as Windows spells it, so that paths shown to programs look as they expect."""
    return re.sub(rb"C:\\\\users(?=[\\\"])", rb"C:\\\\Users", data)


def edit_registry(root: Path, *, epoch_s: int, key: str) -> None:
    """Apply the recipe's edits, fix every time, and derive the other user's registry."""
    prefix = _inside(root, PREFIX)
    registries = {name: RegistryText.parse((prefix / name).read_bytes()) for name in REGISTRY_FILES}
    for edit in REGISTRY_EDITS:
        apply_edit(registries[edit.file], edit)
    guid = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
    registries["system.reg"].set_value("Software\\Microsoft\\Cryptography", "MachineGuid", quoted(guid))
    for name, registry in registries.items():
        registry.fix_times(epoch_s)
        (prefix / name).write_bytes(capitalised_profiles(registry.render()))
    user = (prefix / "user.reg").read_bytes()
    other = _inside(root, USER_REGISTRY_DIRECTORY) / USER
    other.mkdir(parents=True)
    (other / "user.reg").write_bytes(user.replace(f"\\\\{ADMINISTRATOR}".encode(), f"\\\\{USER}".encode()))
    (prefix / ".update-timestamp").write_bytes(UPDATE_TIMESTAMP)
    # Wine opens it for writing, whoever it runs as.
    (prefix / ".update-timestamp").chmod(0o666)


def finish_drive(root: Path) -> None:
    """Profiles of both users with Windows' spelling, no temporary files."""
    drive = _inside(root, DRIVE_C)
    lower = drive / "users"
    if lower.exists():
        lower.rename(drive / _PROFILES)
    administrator = drive / _PROFILES / ADMINISTRATOR
    for directory in (drive / "windows/temp", administrator / "AppData/Local/Temp"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    (drive / "windows/temp").chmod(0o1777)
    (drive / "ProgramData").chmod(0o1777)
    profile = drive / _PROFILES / USER
    shutil.copytree(administrator, profile, symlinks=True)
    for path in (profile, *profile.rglob("*")):
        os.chown(path, USER_UID, USER_UID, follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            # an administrator may write there, who has no capability in a silo to overrule owners
            path.chmod(0o777)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def share_files(root: Path) -> tuple[int, int]:
    """Replace files of C:\\ by hard links to Wine's own where the bytes are the same; returns (files, bytes saved).

    Besides space this shares memory: a DLL loaded from either place has one copy in the page cache.
    """
    own: dict[tuple[int, bytes], Path] = {}
    for directory in _SHARED_WITH:
        for path in sorted((root / directory).iterdir()):
            if path.is_file() and not path.is_symlink():
                own.setdefault((path.stat().st_size, _digest(path)), path)
    sizes = {size for size, _ in own}
    files = saved = 0
    for directory_name, _, names in os.walk(_inside(root, DRIVE_C)):
        for name in names:
            path = Path(directory_name, name)
            size = path.lstat().st_size
            if path.is_symlink() or size not in sizes:
                continue
            twin = own.get((size, _digest(path)))
            if twin is None or twin.samefile(path):
                continue
            path.unlink()
            os.link(twin, path)
            files += 1
            saved += size
    return files, saved


def owner_of(path: str) -> int:
    """Who owns a path (relative to the root) of the image: ContainerUser its profile, root all else."""
    profile = f"{DRIVE_C.lstrip('/')}/{_PROFILES}/{USER}"
    return USER_UID if path == profile or path.startswith(profile + "/") else 0
