"""Modes of files as Docker's API gives them."""

from __future__ import annotations

import stat

# Go's os.FileMode, in which Docker's API gives modes: type and special bits lie above the permissions.
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFREG: 0,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def go_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    special = sum(bit for unix, bit in _GO_BITS.items() if mode & unix)
    return stat.S_IMODE(mode) & 0o777 | special | _GO_TYPES[stat.S_IFMT(mode)]
