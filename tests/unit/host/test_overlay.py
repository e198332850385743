"""What overlayfs' upper directories hold besides files."""

from __future__ import annotations

import os
import stat

from silo.host.overlay import is_whiteout


def status(mode: int, *, device: int = 0) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": device})  # type: ignore[arg-type]


def test_whiteouts() -> None:
    assert is_whiteout(status(stat.S_IFCHR))
    assert not is_whiteout(status(stat.S_IFCHR, device=os.makedev(1, 3)))
    assert not is_whiteout(status(stat.S_IFREG | 0o644))
