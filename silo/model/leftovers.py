"""What a runtime leaves in a container's writable layer that is nobody's change.

Standard library only: the guest's agent uses it.
"""

from __future__ import annotations

import os
import re
import stat

from silo.model.windows_paths import DRIVE_C, PREFIX

# The last two: where a build shows a step the script that its Dockerfile holds.
_MOUNT_POINTS = frozenset({"dev", "proc", "sys", "silo-build", f"{DRIVE_C[1:]}/silo-build"})
_MOUNTED_FILES = frozenset({"etc/hosts", "etc/hostname", "etc/resolv.conf"})
# Where Wine's server keeps its socket, the file that names this directory, and links to the devices that Wine found: of one
# running silo only.
_WINE_RUNTIME = re.compile(
    rf"^(?:tmp/\.wine-\d+(?:/|$)|{PREFIX[1:]}/wineserver$|{PREFIX[1:]}/dosdevices/(?:com|lpt)\d+$)"
)


def is_leftover(name: str, status: os.stat_result) -> bool:
    """A path in an upper directory (relative) that a runtime made: an empty mount point, state of Wine's server."""
    if stat.S_ISDIR(status.st_mode):
        return name in _MOUNT_POINTS or _WINE_RUNTIME.match(name) is not None
    if name in _MOUNTED_FILES:
        return stat.S_ISREG(status.st_mode) and status.st_size == 0
    return _WINE_RUNTIME.match(name) is not None
