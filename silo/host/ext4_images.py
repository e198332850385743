"""ext4 file systems in sparse files: made empty, for containers' own layers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from silo.host.run import run

_LARGE_BYTES = 1 << 30
_JOURNAL_MEBIBYTES = {True: 16, False: 4}


def make_layer_image(path: Path, *, file_bytes: int, size_bytes: int) -> None:
    """A file of `file_bytes` whose file system has `size_bytes`, with the directories `upper` and `work` for overlayfs.

    It is sparse: one takes a mebibyte and its journal at first. Blocks for a tenth of a second. Raises ToolMissing,
    CommandFailed, OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, file_bytes)
    finally:
        os.close(descriptor)
    with tempfile.TemporaryDirectory(dir=path.parent) as tree:
        Path(tree).chmod(0o755)
        for name in ("upper", "work"):
            (Path(tree) / name).mkdir()
            (Path(tree) / name).chmod(0o755)
        journal = f"size={_JOURNAL_MEBIBYTES[size_bytes >= _LARGE_BYTES]}"
        # nothing is kept back for root, and not the many inodes that mke2fs gives to what it takes for a small disk
        features = ["-m", "0", "-J", journal, "-i", "16384", "-I", "256", "-b", "4096"]
        lazily = ["-E", "lazy_itable_init=1,lazy_journal_init=1"]
        run(["mke2fs", "-q", "-F", "-t", "ext4", *features, *lazily, "-d", tree, path, f"{size_bytes >> 10}k"])
