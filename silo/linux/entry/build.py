"""Build the entry from its C source, as a static program without a C library.

    <target_dir>/<digest>/entry      digest: of source and compiler arguments

The same source and the same compiler give the same bytes.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from silo.errors import ToolMissing
from silo.host.run import run

SOURCE = Path(__file__).parent / "entry.c"
COMPILER = "gcc"
PACKAGE = "gcc"

_FLAGS = (
    "-std=c17",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    # a loop that copies must not become a call of memcpy, which is not there
    "-fno-tree-loop-distribute-patterns",
    "-fno-pie",
    "-no-pie",
    # the stack need not be aligned as vector instructions want it
    "-mgeneral-regs-only",
    "-nostdlib",
    "-static",
    "-s",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-e,start",
)


def source_digest() -> str:
    return hashlib.sha256(" ".join(_FLAGS).encode() + b"\n" + SOURCE.read_bytes()).hexdigest()[:32]


def build_entry(target_dir: Path) -> Path:
    """Make `entry` below `target_dir`, or find the one made before. Raises ToolMissing (gcc), CommandFailed."""
    finished = target_dir / source_digest() / "entry"
    if finished.exists():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=finished.parent, prefix=".building-") as work:
        output = Path(work) / "entry"
        try:
            run((COMPILER, *_FLAGS, "-o", output, SOURCE), cwd=Path(work), env={"TMPDIR": work})
        except ToolMissing as error:
            raise ToolMissing(error.tool, PACKAGE) from error
        output.replace(finished)
    return finished
