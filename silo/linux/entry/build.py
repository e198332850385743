"""Build the entry from its C source, as a static program without a C library.

<target_dir>/<digest>/entry      digest: of source and compiler arguments
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from silo.host.compiling import FREESTANDING, compile_once
from silo.host.run import run

SOURCE = Path(__file__).parent / "entry.c"
COMPILER = "gcc"
PACKAGE = "gcc"

_FLAGS = (
    *FREESTANDING,
    "-fno-stack-protector",
    # a loop that copies must not become a call of memcpy, which is not there
    "-fno-tree-loop-distribute-patterns",
    # the stack need not be aligned as vector instructions want it
    "-mgeneral-regs-only",
    "-fno-pie",
    "-no-pie",
    "-static",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-e,start",
)


def source_digest() -> str:
    return hashlib.sha256(" ".join(_FLAGS).encode() + b"\n" + SOURCE.read_bytes()).hexdigest()[:32]


def build_entry(target_dir: Path) -> Path:
    """Make `entry` below `target_dir`, or find the one made before. Raises ToolMissing (gcc), CommandFailed."""

    def compile_in(work: Path) -> Path:
        output = work / "entry"
        run((COMPILER, *_FLAGS, "-o", output, SOURCE), cwd=work, env={"TMPDIR": str(work)})
        return output

    return compile_once(target_dir / source_digest() / "entry", PACKAGE, compile_in)
