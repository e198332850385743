"""The Unix half of the image: packages unpacked, Wine's DLLs slimmed, accounts, nothing else.

/usr/lib/wine/wine64, wineserver64
/usr/lib/x86_64-linux-gnu/wine/{x86_64-windows,x86_64-unix}/
/usr/bin/busybox, sh        for the start script
/etc/{passwd,group,nsswitch.conf}
/silo/                      prefix, users, manifest
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from silo.debian.packages import Package, PrivateApt, unpack
from silo.host.run import run
from silo.windows.base.environment import (
    ADMINISTRATOR,
    ADMINISTRATOR_UID,
    DRIVE_C,
    SILO_DIRECTORY,
    USER,
    USER_UID,
)
from silo.windows.base.portable_executable import marked_builtin, strip_file
from silo.windows.base.recipe import (
    EXCLUDED_FILES,
    FONTCONFIG,
    KEPT_WINE_FONTS,
    LIBERATION_FONTS,
    REMOVED_AFTER_BUILD,
    REPLACED_WINE_PROGRAMS,
    UNLOADABLE_UNIX_MODULES,
)

LIBRARIES = "usr/lib/x86_64-linux-gnu"
WINE_DLLS = f"{LIBRARIES}/wine/x86_64-windows"
WINE_UNIX_MODULES = f"{LIBRARIES}/wine/x86_64-unix"
_WINE_FONTS = "usr/share/wine/fonts"
_ZLIB = "usr/x86_64-w64-mingw32/lib/zlib1.dll"
_LIBERATION_FONTS = "usr/share/fonts/truetype/liberation"

# Wine takes the Windows user name from the first entry with its own uid, so the order matters. The name `root` stays known
# for tools that start containers by user name.
_ACCOUNTS = {
    "passwd": (
        f"{ADMINISTRATOR}:x:{ADMINISTRATOR_UID}:0::{SILO_DIRECTORY}:/bin/sh\n"
        f"{USER}:x:{USER_UID}:{USER_UID}::{SILO_DIRECTORY}:/bin/sh\n"
        f"root:x:0:0::{SILO_DIRECTORY}:/bin/sh\n"
    ),
    "group": f"root:x:0:\n{USER}:x:{USER_UID}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def unpack_packages(apt: PrivateApt, packages: Sequence[Package], root: Path) -> None:
    """Unpack all packages into the new directory `root`."""
    root.mkdir(mode=0o755)
    for package in packages:
        unpack(apt, package, root, exclude=EXCLUDED_FILES)


def slim_wine(root: Path) -> int:
    """Remove debug sections from Wine's DLLs and make the zlib1.dll that libwine's postinst would; returns bytes saved."""
    dlls = root / WINE_DLLS
    (dlls / "zlib1.dll").write_bytes(marked_builtin((root / _ZLIB).read_bytes()))
    for name in UNLOADABLE_UNIX_MODULES:
        (root / WINE_UNIX_MODULES / name).unlink(missing_ok=True)
    for name in REPLACED_WINE_PROGRAMS:
        (dlls / name).unlink()
    return sum(strip_file(path) for path in sorted(dlls.iterdir()))


def write_accounts(root: Path) -> None:
    """Users, groups, and the directories that mounts and Wine expect."""
    for name, text in _ACCOUNTS.items():
        (root / "etc" / name).write_text(text, encoding="ascii")
    for directory in ("dev", "proc", "sys", "tmp", "run", "var/tmp", SILO_DIRECTORY.lstrip("/")):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    shell = root / "usr/bin/sh"
    shell.unlink(missing_ok=True)
    shell.symlink_to("busybox")


def place_fonts(root: Path) -> None:
    """Put the fonts of the image where Windows has them, before Wine sees others, and write fontconfig's settings."""
    fonts = root / DRIVE_C.lstrip("/") / "windows/Fonts"
    fonts.mkdir(parents=True)
    for directory, names in ((_WINE_FONTS, KEPT_WINE_FONTS), (_LIBERATION_FONTS, LIBERATION_FONTS)):
        for name in sorted(names):
            shutil.copyfile(root / directory / name, fonts / name)
    shutil.rmtree(root / "etc/fonts")
    (root / "etc/fonts").mkdir()
    (root / "etc/fonts/fonts.conf").write_text(FONTCONFIG, encoding="ascii")


def finish(root: Path) -> None:
    """Remove what only the build needed, index the libraries for the dynamic linker."""
    for name in REMOVED_AFTER_BUILD:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    run(["ldconfig", "-X", "-r", root])
    (root / "var/cache/ldconfig/aux-cache").unlink(missing_ok=True)
