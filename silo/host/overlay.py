"""What overlayfs writes into an upper directory besides files.

A whiteout is a character device 0:0; a directory with `trusted.overlay.opaque=y` hides everything below it in lower layers; one
with `trusted.overlay.redirect` was moved, and shows what lower layers have at its old place.
Source: the kernel's `Documentation/filesystems/overlayfs.rst`.
"""

from __future__ import annotations

import os
import stat

OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
REDIRECT_ATTRIBUTE = "trusted.overlay.redirect"


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    """Of a directory opened for reading."""
    try:
        return os.getxattr(descriptor, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False


def is_moved(descriptor: int) -> bool:
    """Of a directory opened for reading: only an overlay of the upper directory and its lower layers shows what is in it."""
    try:
        return bool(os.getxattr(descriptor, REDIRECT_ATTRIBUTE))
    except OSError:
        return False
