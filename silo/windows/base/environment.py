"""Where things lie in the Windows base image and what its programs need around them.

The personality imports these names; docs/base-image.md explains each one.
"""

from __future__ import annotations

SILO_DIRECTORY = "/silo"
"""Everything of Silo's own in the image."""

PREFIX = "/silo/prefix"
"""The Wine prefix: registry files, `dosdevices`, and `drive_c`."""

DRIVE_C = "/silo/prefix/drive_c"
"""`C:\\` as a Unix path."""

REGISTRY_FILES = ("system.reg", "user.reg", "userdef.reg")
"""The registry, in PREFIX: HKEY_LOCAL_MACHINE, HKEY_CURRENT_USER, the template of new users."""

MANIFEST_FILE = "/silo/manifest.json"
"""What went into the image."""

USER_REGISTRY_DIRECTORY = "/silo/users"
"""`<user name>/user.reg`: takes the place of PREFIX/user.reg where the container runs as that user."""

WINE = "/usr/lib/wine/wine64"
WINESERVER = "/usr/lib/wine/wineserver64"

ADMINISTRATOR = "ContainerAdministrator"
ADMINISTRATOR_UID = 0
USER = "ContainerUser"
USER_UID = 1000

UNIX_ENVIRONMENT: dict[str, str] = {
    "WINEPREFIX": PREFIX,
    "WINELOADER": WINE,
    "WINESERVER": WINESERVER,
    # Mono and Gecko are not in the image: without this Wine asks, in a window, to download them.
    "WINEDLLOVERRIDES": "winemenubuilder.exe,mscoree,mshtml=d",
    "WINEDEBUG": "-all",
    # File names are UTF-8. One category is enough for Wine and costs every process one file instead of twelve.
    "LC_CTYPE": "C.UTF-8",
    "HOME": SILO_DIRECTORY,
    "PATH": "/usr/bin",
}
"""The complete environment of the first Unix process in a container; programs see none of it (but see docs)."""

OS_VERSION = "10.0.20348.2700"
"""The build that the image and its registry claim: Windows Server 2022 (ltsc2022)."""
